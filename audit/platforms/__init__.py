"""The same model on other compilers and libraries: is it the same model?

    from bitlens.audit import equivalence
    report = equivalence("smollm2-135m-instruct", ["hf", "jax", "jax-bf16"])
    print([(row.platform, row.grade, row.rms, row.error) for row in report.rows])

docs/equivalence.md says what each grade means.
"""

from .equivalence import equivalence
from .grades import Grade
from .platform import PLATFORMS, Platform
from .report import EquivalenceReport, PlatformRow

__all__ = [
    "PLATFORMS",
    "EquivalenceReport",
    "Grade",
    "Platform",
    "PlatformRow",
    "equivalence",
]
