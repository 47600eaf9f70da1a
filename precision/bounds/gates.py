"""Bounds for SiLU, SwiGLU, GELU and the soft cap."""

from __future__ import annotations

import math

import torch

from ..reals.definitions import gelu_argument
from ..reals.fp64 import Fp64
from .rounding_model import RoundingModel

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
    return model.within_range(error, x.abs() if kind == "none" else x.abs() ** 3)


def soft_cap_bound(model: RoundingModel, y: Tensor, x: Tensor, cap: float) -> Tensor:
    error = soft_cap_error(model, y.abs(), cap) + model.flushed(x.double())
    return model.cast("output", y, error)


def soft_cap_error(model: RoundingModel, size: Tensor, cap: float) -> Tensor:
    """Bounds the error of c tanh(q), q = x / c, before a cast, for results as large as `size`.

    x's own error comes on top.

    A relative error e of q moves tanh q by e / (1 - e) of itself at most, as q is at most tanh q
    times cosh^2 q; an absolute one by no more than itself.
    """
    argument, lost = model.steps(2), model.underflow
    if "quotient" in model.casts:
        fmt = model.casts["quotient"]
        argument = (1 + argument) * (1 + fmt.unit_roundoff) - 1
        lost += model.lost(fmt)
    relative = (1 + argument / (1 - argument)) * (1 + model.function) - 1
    error = relative * size / cap + lost + model.underflow
    error = cap * model.cast("tanh", size / cap, error)
    return error + model.steps(1) * (size + error) + model.underflow
