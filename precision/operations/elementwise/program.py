"""Sums, products, sigmoid and tanh over any `Arithmetic`."""

from __future__ import annotations

from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def add(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(ar.add(ar.given(inputs["a"]), ar.given(inputs["b"])), "output")


def mul(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(ar.mul(ar.given(inputs["a"]), ar.given(inputs["b"])), "output")


def sigmoid(ar: Arithmetic[V], inputs: Inputs) -> V:
    """1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) where x < 0, which cannot overflow."""
    x, one = ar.given(inputs["x"]), ar.constant(1.0)

    def without_overflow() -> V:
        negative = ar.shape(torch.minimum, x, ar.neg(x))
        small = ar.exp(negative)
        denominator = ar.add(one, small)
        low, high = ar.div(small, denominator), ar.div(one, denominator)
        return ar.shape(lambda a, b: torch.where(inputs["x"] < 0, a, b), low, high)

    usual = ar.either(
        lambda: ar.div(one, ar.add(one, ar.exp(ar.neg(x)))),
        without_overflow,
    )
    return ar.cast(usual, "output")


def tanh(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(ar.tanh(ar.given(inputs["x"])), "output")
