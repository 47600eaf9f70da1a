"""All public bugs, by kind."""

from __future__ import annotations

from . import (
    attention,
    codes,
    convolutions,
    elementwise,
    functions,
    gates,
    norms,
    products,
    quantised,
    rotations,
    training,
)
from .bug import PublicBug

BUGS: tuple[PublicBug, ...] = (
    *rotations.BUGS,
    *attention.BUGS,
    *norms.BUGS,
    *products.BUGS,
    *convolutions.BUGS,
    *functions.BUGS,
    *gates.BUGS,
    *elementwise.BUGS,
    *quantised.BUGS,
    *codes.BUGS,
    *training.BUGS,
)
