"""Sigmoid and tanh as implementations have got them wrong."""

from __future__ import annotations

from typing import Any

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs


def sigmoid_by_positive_exponent(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """exp(x) / (1 + exp(x)) for every x: infinity over infinity (clab/dynet#1525)."""
    exponential = ar.exp(ar.given(inputs["x"]))
    denominator = ar.add(ar.constant(1.0), exponential)
    return ar.cast(ar.div(exponential, denominator), "output")


def tanh_by_exponentials(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """(exp(2x) - 1) / (exp(2x) + 1), which cancels about 0 and overflows (BVLC/caffe#1455)."""
    x, one = ar.given(inputs["x"]), ar.constant(1.0)
    exponential = ar.exp(ar.add(x, x))
    quotient = ar.div(ar.sub(exponential, one), ar.add(exponential, one))
    return ar.cast(quotient, "output")
