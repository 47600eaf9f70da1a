"""Quantisation over any `Arithmetic`: codes, what they stand for, and the scales of blocks.

That codes are integers, or numbers of 8 or 4 bits, is the format that a contract's output has.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..softmax.program import ratio
from .blocks import largest, power_above, power_below, spread

V = TypeVar("V")


def quantize(ar: Arithmetic[V], inputs: Inputs) -> V:
    """x / scale + zero point, within the range of codes; the cast at the end is the rounding."""
    n, low, high = inputs["x"].shape[-1], inputs["low"], inputs["high"]
    scale = ar.shape(lambda t: spread(t, n), ar.given(inputs["scale"]))
    code = ratio(ar, ar.given(inputs["x"]), scale)
    if inputs["zero_point"]:
        code = ar.add(code, ar.constant(float(inputs["zero_point"])))
    limited = ar.shape(lambda t: t.clamp(low, high), code)
    return ar.cast(limited, "output")


def dequantize(ar: Arithmetic[V], inputs: Inputs) -> V:
    """code * scale, plus the block's minimum where there is one."""
    per_block = partial(spread, n=inputs["codes"].shape[-1])
    scale = ar.shape(per_block, ar.given(inputs["scale"]))
    value = ar.mul(ar.given(inputs["codes"]), scale)
    if inputs["minimum"] is not None:
        value = ar.add(value, ar.shape(per_block, ar.given(inputs["minimum"])))
    return ar.cast(value, "output")


def block_scale(ar: Arithmetic[V], inputs: Inputs) -> V:
    """The largest magnitude of a block over the largest code, or a power of two for it."""
    peak, limit = peaks(ar, inputs), ar.constant(inputs["limit"])
    if inputs["power"] == "floor":  # OCP MX 1.0, section 6.3: the exponents' difference
        least = 2.0 ** -math.floor(math.log2(inputs["limit"]))
        return ar.cast(ar.shape(lambda t: power_below(t) * least, peak), "output")
    scale = ratio(ar, peak, limit)
    if inputs["power"] == "up":
        scale = ar.shape(power_above, scale)
    return ar.cast(scale, "output")


def peaks(ar: Arithmetic[V], inputs: Inputs) -> V:
    """The largest magnitude of each block."""
    x = ar.given(inputs["x"])
    return ar.shape(lambda a, b: largest(torch.maximum(a, b), inputs["block"]), x, ar.neg(x))
