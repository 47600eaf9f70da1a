"""All public bugs, by kind."""

from __future__ import annotations

from . import attention, functions, norms, products, quantised, rotations
from .bug import PublicBug

BUGS: tuple[PublicBug, ...] = (
    *rotations.BUGS,
    *attention.BUGS,
    *norms.BUGS,
    *products.BUGS,
    *functions.BUGS,
    *quantised.BUGS,
)
