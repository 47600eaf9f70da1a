"""Softmax and logsumexp over any `Arithmetic`."""

from __future__ import annotations

from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def softmax(ar: Arithmetic[V], inputs: Inputs) -> V:
    exponentials, total, _ = _softmax_terms(ar, ar.given(inputs["x"]))
    return ar.cast(ratio(ar, exponentials, total), "output")


def logsumexp(ar: Arithmetic[V], inputs: Inputs) -> V:
    _, total, maximum = _softmax_terms(ar, ar.given(inputs["x"]))
    result = ar.add(maximum, ar.log(total))
    return ar.cast(ar.shape(lambda t: t.squeeze(-1), result), "output")


def _softmax_terms(ar: Arithmetic[V], x: V) -> tuple[V, V, V]:
    """exp(x - max), their sum, max (Blanchard, Higham & Higham 2021)."""
    shifted, maximum = ar.shifted(x)
    exponentials = ar.cast(ar.exp(shifted), "exponentials")
    total = ar.cast(ar.sum(exponentials, rescaled=True), "sum")
    return exponentials, total, maximum


def ratio(ar: Arithmetic[V], a: V, b: V) -> V:
    return ar.either(lambda: ar.div(a, b), lambda: ar.mul(a, ar.div(ar.constant(1.0), b)))
