"""Bounds and conditions of SiLU, GELU and their gates."""

from __future__ import annotations

import math

import torch

from ...arithmetic.rounding_model import RoundingModel
from ...reals.fp64 import Fp64
from .real import GELU_CUBIC, gelu, gelu_argument

Tensor = torch.Tensor


def silu_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    return model.cast("output", y, _silu_error(model, y, x.double()))


def swiglu_bound(
    model: RoundingModel, y: Tensor, gate: Tensor, up: Tensor, activation: str
) -> Tensor:
    g, factor = gate.double(), up.double().abs()
    if activation == "silu":
        activated = g * g.sigmoid()
        error = _silu_error(model, activated, g)
    else:
        activated = torch.nn.functional.gelu(g, approximate="tanh")
        error = _gelu_error(model, g, activation)
    error = model.cast("activated", activated, error)
    reach = (activated.abs() + error) * factor
    error = factor * error + model.steps(1) * reach + model.underflow
    error = error + activated.abs() * model.flushed(factor)
    return model.cast("output", y, model.within_range(error, reach))


def clamped_swiglu_bound(
    model: RoundingModel,
    y: Tensor,
    gate: Tensor,
    up: Tensor,
    limit: float,
    alpha: float,
    offset: float,
) -> Tensor:
    """The errors of both factors, and of the constants: a limit is a rounded one, too."""
    g, u = gate.double().clamp(max=limit), up.double().clamp(-limit, limit)
    given = model.steps(1) * limit + model.flushed(gate.double())
    slope = alpha * g
    slope_error = model.steps(2) * (slope.abs() + abs(alpha) * given) + abs(alpha) * given
    slope_error = model.cast("scaled", slope, slope_error + model.underflow)
    activated = g * slope.sigmoid()
    exponential = model.exponential(slope.abs() + slope_error).expm1()
    relative = (1 + exponential) * slope_error.exp() * (1 + model.steps(4)) - 1
    error = relative * (activated.abs() + given) + given + model.underflow * (1 + g.abs())
    overflows = _exp_may_overflow(model, -slope)
    error = torch.where(overflows, error.maximum(activated.abs()), error)
    if "sigmoid" in model.casts:
        fmt = model.casts["sigmoid"]
        error = error + fmt.unit_roundoff * (activated.abs() + error) + g.abs() * model.lost(fmt)
    error = model.cast("activated", activated, error)

    shifted = u + offset
    reach = u.abs() + abs(offset)
    up_error = model.steps(2) * reach + model.steps(1) * limit + model.flushed(up.double())
    up_error = model.cast("shifted", shifted, up_error)
    size = (activated.abs() + error) * (shifted.abs() + up_error)
    error = error * (shifted.abs() + up_error) + activated.abs() * up_error
    error = error + model.steps(1) * size + model.underflow
    return model.cast("output", y, model.within_range(error, size))


def _silu_error(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    """g / (1 + exp(-g)), or g * sigmoid(g): nothing cancels, but exp(-g) may overflow."""
    exponential = model.exponential(x.abs()).expm1() * (-x).sigmoid()
    relative = (1 + exponential) * (1 + model.steps(4)) - 1
    error = relative * y.abs() + model.underflow * (1 + x.abs()) + model.flushed(x)
    error = torch.where(_exp_may_overflow(model, -x), error.maximum(y.abs()), error)
    if "sigmoid" in model.casts:
        fmt = model.casts["sigmoid"]
        error = error + fmt.unit_roundoff * (y.abs() + error) + x.abs() * model.lost(fmt)
    return error


def _exp_may_overflow(model: RoundingModel, exponent: Tensor) -> Tensor:
    return exponent > math.log(model.compute.largest) - 1


def gelu_bound(model: RoundingModel, y: Tensor, x: Tensor, approximate: str) -> Tensor:
    return model.cast("output", y, _gelu_error(model, x.double(), approximate))


def _gelu_error(model: RoundingModel, x: Tensor, kind: str) -> Tensor:
    """0.5 x (1 + erf) or (1 + tanh): the sum cancels for x < 0, so errors are relative to x."""
    if kind == "none":
        argument = x / math.sqrt(2)
        value, relative = argument.erf(), model.steps(2)
    else:
        argument = gelu_argument(Fp64(), x)
        value, relative = argument.tanh(), model.steps(10)
    # The derivative where it is largest within the argument's error, which lowers |argument| most.
    least = argument.abs() * (1 - min(relative, 1.0))
    if kind == "none":
        slope = 2 / math.sqrt(math.pi) * (-least.square()).exp()
    else:
        slope = 1 - least.tanh().square()
    inner = slope * argument.abs() * relative
    # erf counts ULP of 1, so that approximations with a small absolute error pass.
    function = model.function if kind == "none" else model.function * (value.abs() + inner)
    inner = inner + function + model.steps(2) * (value.abs() + inner)
    inner = inner + model.steps(1) * (1 + value + inner)
    distribution = (1 + value) / 2
    error = model.cast("distribution", distribution, inner / 2)
    error = x.abs() * (error + model.steps(3) * (distribution + error))
    error = error + model.underflow * (1 + x.abs()) + model.flushed(x)
    return model.within_range(error, 2 * x.abs() if kind == "none" else x.abs() ** 3)


def silu_spread(y: Tensor, x: Tensor) -> Tensor:
    r = x.double()
    return y.abs() * (1 + r * (-r).sigmoid()).abs()


def gelu_spread(y: Tensor, x: Tensor, approximate: str) -> Tensor:
    """x (Phi(x) + x Phi'(x)), or with the derivative of the tanh form."""
    r = x.double()
    if approximate == "none":
        density: Tensor = (-r.square() / 2).exp() / (2 * torch.pi) ** 0.5
        return torch.abs(y + r.square() * density)
    argument: Tensor = gelu_argument(Fp64(), r)
    slope = (2 / torch.pi) ** 0.5 * (1 + 3 * GELU_CUBIC * r.square())
    density = 2 * slope * (2 * argument).sigmoid() * (-2 * argument).sigmoid()
    return torch.abs(y + r.square() * density)


def swiglu_spread(y: Tensor, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        return silu_spread(y, gate)
    activated = gelu(Fp64(), gate, "tanh")
    return gelu_spread(activated, gate, "tanh") * up.double().abs()


def clamped_swiglu_spread(
    y: Tensor, gate: Tensor, up: Tensor, limit: float, alpha: float, offset: float
) -> Tensor:
    """|g dy/dg|; 0 where the gate is clamped."""
    g = gate.double()
    slope = alpha * g
    moved = y.abs() * (1 + slope * (-slope).sigmoid()).abs()
    return moved.masked_fill(g > limit, 0.0)
