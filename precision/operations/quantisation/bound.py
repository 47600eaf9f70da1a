"""Bounds and conditions of codes, of what they stand for, and of scales."""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel
from .blocks import largest, spread

Tensor = torch.Tensor


def quantize_bound(
    model: RoundingModel,
    y: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: int,
    low: float,
    high: float,
) -> Tensor:
    """A quotient, or a product with a reciprocal, and one addition; clamping adds nothing.

    A reciprocal that underflows is off by that, x times.
    """
    s = spread(scale.double(), x.shape[-1])
    quotient = (x.double() / s).abs()
    lost = model.underflow * (1 + x.double().abs()) + model.flushed(x.double()) / s
    lost = lost + (quotient if model.may_flush else 0.0) * (model.flushed(s) > 0)
    error = model.steps(2) * quotient + lost
    if zero_point:
        error = error + model.steps(1) * (quotient + abs(zero_point) + error)
    reach = torch.maximum(quotient + abs(zero_point), 1 / s)
    error = model.within_range(error, reach)
    return model.cast("output", y, error)


def dequantize_bound(
    model: RoundingModel, y: Tensor, codes: Tensor, scale: Tensor, minimum: Tensor | None
) -> Tensor:
    s, c = spread(scale.double(), codes.shape[-1]).abs(), codes.double().abs()
    product = c * s
    error = model.steps(1) * product + model.underflow
    error = error + model.flushed(c) * s + c * model.flushed(s)
    reach = product + error
    if minimum is not None:
        offset = spread(minimum.double(), codes.shape[-1])
        error = error + model.flushed(offset)
        reach = reach + offset.abs()
        error = error + model.steps(1) * (y.abs() + error) + model.underflow
    return model.cast("output", y, model.within_range(error, reach))


def block_scale_bound(
    model: RoundingModel, y: Tensor, x: Tensor, block: int, limit: float, power: str | None
) -> Tensor:
    """A quotient by a rounded limit; a power of two is right, or the next one at a boundary."""
    peak = largest(x.double().abs(), block)
    lost = model.flushed(peak) * (1 + 1 / limit)
    if power == "floor":
        return model.cast("output", y, (lost + y * (lost > 0) + model.flushed(y)))
    error = model.steps(3) * peak / limit + model.underflow * (1 + peak) + lost
    if power == "up":
        power_near = torch.exp2(torch.log2(peak / limit).round())
        error = torch.where((peak / limit - power_near).abs() <= 2 * error, y.abs() + error, 0.0)
        error = error.maximum(lost) + y * (model.flushed(peak / limit) > 0)
    error = error + model.flushed(y)
    return model.cast("output", y, model.within_range(error, peak * (1 + 1 / limit)))


def quantize_spread(
    y: Tensor, x: Tensor, scale: Tensor, zero_point: int, low: float, high: float
) -> Tensor:
    """Returns |x / scale| within the range of codes, and 0 beyond."""
    quotient = (x.double() / spread(scale.double(), x.shape[-1])).abs()
    return quotient.masked_fill((y <= low) | (y >= high), 0.0)


def dequantize_spread(y: Tensor, codes: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
    product = (codes.double() * spread(scale.double(), codes.shape[-1])).abs()
    return product if minimum is None else product + spread(minimum.double(), y.shape[-1]).abs()


def block_scale_spread(y: Tensor, x: Tensor, block: int, limit: float, power: str | None) -> Tensor:
    return y.abs()
