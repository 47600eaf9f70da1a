"""The same model on other compilers and libraries: is it the same model?

from bitlens.audit import equivalence
for row in equivalence("smollm2-135m-instruct", ["hf", "jax", "jax-bf16"]).rows:
    print(row.platform, row.grade, row.rms, row.error)
"""

from .equivalence import EquivalenceReport, PlatformRow, equivalence
from .grades import Grade
from .platform import PLATFORMS, Platform

__all__ = [
    "PLATFORMS",
    "EquivalenceReport",
    "Grade",
    "Platform",
    "PlatformRow",
    "equivalence",
]
