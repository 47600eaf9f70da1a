"""Scales and values as implementations have got them wrong, each right but for one thing."""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program
from .blocks import power_below, spread

Tensor = torch.Tensor


def exponent_of_quotient(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The exponent of a block's largest over the largest code, not the difference of exponents:
    one less for most blocks (vllm-project/vllm#43557)."""
    quotient = ar.div(program.peaks(ar, inputs), ar.constant(inputs["limit"]))
    return ar.cast(ar.shape(power_below, quotient), "output")


def nearest_power(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The nearest power of two, below which a block's largest is cut off (ml-explore/mlx#4353)."""
    quotient = ar.div(program.peaks(ar, inputs), ar.constant(inputs["limit"]))
    if inputs["power"] is None:
        return ar.cast(quotient, "output")
    return ar.cast(ar.shape(_nearest, quotient), "output")


def divided_by_scale(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """Codes over their scale (microsoft/BitNet#616)."""
    n = inputs["codes"].shape[-1]
    scale = ar.shape(lambda t: spread(t, n), ar.given(inputs["scale"]))
    value = ar.div(ar.given(inputs["codes"]), scale)
    if inputs["minimum"] is not None:
        value = ar.add(value, ar.shape(lambda t: spread(t, n), ar.given(inputs["minimum"])))
    return ar.cast(value, "output")


def _nearest(x: Tensor) -> Tensor:
    below = power_below(x)
    return torch.where(x * x <= 2 * below * below, below, 2 * below)
