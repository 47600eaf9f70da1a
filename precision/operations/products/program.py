"""The matrix product over any `Arithmetic`."""

from __future__ import annotations

from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def matmul(ar: Arithmetic[V], inputs: Inputs) -> V:
    a, b = ar.given(inputs["a"]), ar.given(inputs["b"])
    bias = None if inputs["bias"] is None else ar.given(inputs["bias"])
    if bias is None or not ar.declares("product"):
        return ar.cast(ar.cast(ar.dot(a, b, bias), "product"), "output")
    return ar.cast(ar.add(ar.cast(ar.dot(a, b), "product"), bias), "output")
