"""All public bugs, by kind."""

from __future__ import annotations

from . import (
    attention,
    codes,
    convolutions,
    elementwise,
    functions,
    gates,
    losses,
    norms,
    products,
    quantised,
    rotations,
    scores,
    training,
)
from .bug import PublicBug

BUGS: tuple[PublicBug, ...] = (
    *rotations.BUGS,
    *attention.BUGS,
    *scores.BUGS,
    *norms.BUGS,
    *products.BUGS,
    *convolutions.BUGS,
    *functions.BUGS,
    *losses.BUGS,
    *gates.BUGS,
    *elementwise.BUGS,
    *quantised.BUGS,
    *codes.BUGS,
    *training.BUGS,
)
