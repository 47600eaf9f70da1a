"""Bounds and conditions of sums, products, sigmoid and tanh."""

from __future__ import annotations

import math

import torch

from ...arithmetic.rounding_model import RoundingModel

Tensor = torch.Tensor


def add_bound(model: RoundingModel, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One rounding; a sum that is subnormal is exact, if it may not be flushed."""
    lost = model.flushed(a.double()) + model.flushed(b.double())
    flushed = model.underflow if model.may_flush else 0.0
    error = model.steps(1) * (y.abs() + lost) + lost + flushed
    return model.cast("output", y, model.within_range(error, y.abs() + error))


def mul_bound(model: RoundingModel, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    wide_a, wide_b = a.double(), b.double()
    lost = model.flushed(wide_a) * wide_b.abs() + wide_a.abs() * model.flushed(wide_b)
    error = model.steps(1) * y.abs() + lost + model.underflow
    return model.cast("output", y, model.within_range(error, y.abs() + error))


def sigmoid_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    return model.cast("output", y, sigmoid_error(model, x.double()))


def sigmoid_error(model: RoundingModel, r: Tensor) -> Tensor:
    """An error d of log exp(-x) moves y by the factor 1 + sigmoid(-x) expm1(d) at most; one of
    log exp(x), in exp(x) / (1 + exp(x)), by 1 + expm1(d). exp(-x) may overflow."""
    y = r.sigmoid()
    weight = torch.where(r < 0, 1.0, (-r).sigmoid())
    exponential = (model.exponential(r.abs()).expm1() * weight).masked_fill(weight == 0, 0.0)
    relative = (1 + exponential) * (1 + model.steps(4)) - 1
    error = relative.clamp(max=1e300) * y.abs() + 2 * model.underflow + model.flushed(r) / 4
    overflows = -r > math.log(model.compute.largest) - 1
    return torch.where(overflows, error.maximum(r.exp()), error)


def tanh_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    error = model.function * y.abs() + model.underflow + model.flushed(x.double())
    return model.cast("output", y, error)


def add_spread(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a.double().abs() + b.double().abs()


def mul_spread(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return 2 * y.abs()


def sigmoid_spread(y: Tensor, x: Tensor) -> Tensor:
    r = x.double()
    return (r * y).abs() * (-r).sigmoid()


def tanh_spread(y: Tensor, x: Tensor) -> Tensor:
    r = x.double()
    return r.abs() * torch.cosh(r) ** -2
