"""Quantisation over the real numbers: codes before they are rounded, values, scales."""

from __future__ import annotations

import math

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def quantize(
    over: Algebra, x: Tensor, scale: Tensor, zero_point: int, low: float, high: float
) -> Array:
    """Clamped before the quotient: x within (low - zero point) scale and (high - ...) scale."""
    blocks = x.double().reshape(*scale.shape, -1)
    s = scale.double()[..., None]
    least, most = (low - zero_point) * s, (high - zero_point) * s
    within = over.lift(blocks) / over.lift(s) + float(zero_point)
    ends = [over.lift(blocks * 0.0 + min(max(end, -1e300), 1e300)) for end in (low, high)]
    code = _choose(over, blocks < least, ends[0], _choose(over, blocks > most, ends[1], within))
    return code.reshape(*x.shape)


def _choose(over: Algebra, where: Tensor, a: Array, b: Array) -> Array:
    chosen = over.lift(where.double())
    return a * chosen + b * (over.lift(1.0) - chosen)


def dequantize(over: Algebra, codes: Tensor, scale: Tensor, minimum: Tensor | None) -> Array:
    blocks = over.lift(codes.double().reshape(*scale.shape, -1)) * over.lift(scale[..., None])
    if minimum is not None:
        blocks = blocks + over.lift(minimum[..., None])
    return blocks.reshape(*codes.shape)


def block_scale(over: Algebra, x: Tensor, block: int, limit: float, power: str | None) -> Array:
    peak = x.double().abs().reshape(*x.shape[:-1], -1, block).amax(-1)
    if power is None:
        return over.lift(peak) / over.lift(limit)
    exponents = torch.frexp(peak).exponent - 1 - math.floor(math.log2(limit))
    two = torch.full_like(peak, 2.0)
    if power == "up":  # the least k with limit 2^k >= peak, products that fp64 holds
        exponents = exponents - 1
        for _ in range(3):
            exponents = exponents + (limit * two.pow(exponents) < peak).int()
    return over.lift(torch.where(peak == 0, 0.0, two.pow(exponents)))
