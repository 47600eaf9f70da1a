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
    return ar.cast(sigmoid_of(ar, ar.given(inputs["x"]), inputs["x"] < 0), "output")


def sigmoid_of(ar: Arithmetic[V], x: V, below: torch.Tensor) -> V:
    """1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) where x is `below` 0, which cannot overflow."""
    one = ar.constant(1.0)

    def without_overflow() -> V:
        small = ar.exp(ar.shape(torch.minimum, x, ar.neg(x)))
        denominator = ar.add(one, small)
        low, high = ar.div(small, denominator), ar.div(one, denominator)
        return ar.shape(lambda a, b: torch.where(below, a, b), low, high)

    return ar.either(
        lambda: ar.div(one, ar.add(one, ar.exp(ar.neg(x)))),
        without_overflow,
    )


def tanh(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(ar.tanh(ar.given(inputs["x"])), "output")
