"""Bounds and conditions of RMSNorm, LayerNorm and GroupNorm."""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.rounding_model import RoundingModel
from .groups import as_layers

Tensor = torch.Tensor


def rms_norm_bound(
    model: RoundingModel, y: Tensor, x: Tensor, weight: Tensor | None, eps: float
) -> Tensor:
    """Half the growth of a sum of squares, which cannot cancel, and a few roundings."""
    r = x.double()
    n = x.shape[-1]
    square = r.square().mean(-1, keepdim=True) + eps
    growth = (1 + model.reduction(n)) * (1 + model.steps(4)) - 1
    relative = growth + (2 * model.underflow + model.flushed(square.new_tensor(eps))) / square
    scale, scale_error = _scale(model, square, relative)
    normalized = r * scale
    error = r.abs() * scale_error + model.steps(2) * (normalized.abs() + r.abs() * scale_error)
    error = error + model.flushed(r) * (scale + scale_error) + model.underflow
    error = model.within_range(error, n * square * (1 + growth))
    error = model.cast("normalized", normalized, error)
    return _affine(model, y, normalized, error, weight, None)


def layer_norm_bound(
    model: RoundingModel,
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Bounds RMSNorm of x - mean, which inherits the mean's error: growth * mean|x| / |x - mean|.

    Variance from the deviations, or updated with the mean (Welford; Chan, Golub and LeVeque,
    American Statistician 37, 1983, table 2); by E[x^2] - E[x]^2 it can be off by more.
    (x - mean) * scale, or x * scale - mean * scale.
    """
    r = x.double()
    n = x.shape[-1]
    mean = r.mean(-1, keepdim=True)
    centred = r - mean
    sums = (1 + model.reduction(n)) * (1 + model.steps(2)) - 1
    mean_error = sums * r.abs().mean(-1, keepdim=True) + 2 * model.underflow
    centred_error = mean_error + model.u * (centred.abs() + mean_error) + model.underflow

    variance = centred.square().mean(-1, keepdim=True)
    spread = variance + mean_error.square()
    growth = (1 + model.reduction(n)) * (1 + model.steps(4)) - 1
    updating = 2 * growth * (variance * r.square().mean(-1, keepdim=True)).sqrt()
    variance_error = mean_error.square() + growth * spread + updating + 2 * model.underflow
    relative = variance_error / (variance + eps) + model.steps(2)
    scale, scale_error = _scale(model, variance + eps, relative)

    normalized = centred * scale
    reach = r.abs() + mean.abs() + mean_error
    error = centred_error * (scale + scale_error) + centred.abs() * scale_error
    error = error + model.steps(2) * reach * (scale + scale_error) + model.underflow
    error = model.within_range(error, n * (spread + r.abs().amax(-1, keepdim=True)))
    error = model.cast("normalized", normalized, error)
    return _affine(model, y, normalized, error, weight, bias)


def _scale(model: RoundingModel, square: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
    """1 / sqrt(square) and its error, where `square` is off by `relative`."""
    scale = square.rsqrt()
    inverse = torch.where(relative < 1, (1 - relative.clamp(max=1.0)).rsqrt(), torch.inf)
    error = scale * (inverse * (1 + model.function) * (1 + model.steps(1)) - 1)
    return scale, model.cast("scale", scale, error)


def _affine(
    model: RoundingModel,
    y: Tensor,
    normalized: Tensor,
    error: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    reach = normalized.abs() + error
    if weight is not None:
        gain = weight.double().abs()
        reach = reach * gain
        error = gain * error + model.steps(1) * reach + model.underflow
        error = error + model.flushed(gain) * normalized.abs()
    if bias is not None:
        error = error + model.flushed(bias.double())
        error = error + model.steps(1) * (y.abs() + error) + model.underflow
        reach = reach + bias.double().abs()
    return model.cast("output", y, model.within_range(error, reach + error))


def rms_norm_spread(y: Tensor, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """dy_i/dx_j = w_i s (delta_ij - x_i x_j s^2 / n), s the reciprocal root."""
    r = x.double()
    square = r.square().mean(-1, keepdim=True) + eps
    share = r.square() / (x.shape[-1] * square)
    return y.abs() * ((1 - share).abs() + share.sum(-1, keepdim=True) - share)


def layer_norm_spread(
    y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """dy_i/dx_j = w_i s (delta_ij - 1/n - d_i d_j s^2 / n) with d = x - mean."""
    r = x.double()
    centred = r - r.mean(-1, keepdim=True)
    square = centred.square().mean(-1, keepdim=True) + eps
    pull = (centred * r).abs().mean(-1, keepdim=True) / square
    spread = r.abs() + r.abs().mean(-1, keepdim=True) + centred.abs() * pull
    scaled = square.rsqrt() * spread
    return scaled if weight is None else weight.double().abs() * scaled


def group_norm_bound(model: RoundingModel, y: Tensor, **inputs: Any) -> Tensor:
    """A LayerNorm's; scale, weight and mean may also be folded into one slope and one offset."""
    layers = as_layers(inputs)
    error = layer_norm_bound(model, y.reshape(layers["x"].shape), **layers)
    if not {"scale", "normalized"} & set(model.casts):
        r, bias = layers["x"].double(), layers["bias"]
        scale = (r.var(-1, correction=0, keepdim=True) + layers["eps"]).rsqrt()
        slope = scale if layers["weight"] is None else scale * layers["weight"].double().abs()
        size = r.abs() + 2 * r.mean(-1, keepdim=True).abs()
        reach = size * slope if bias is None else size * slope + bias.double().abs()
        error = error + model.steps(4) * reach + 2 * size * model.underflow
        error = model.within_range(error, reach.maximum(slope))
    return error.reshape(y.shape)


def group_norm_spread(y: Tensor, **inputs: Any) -> Tensor:
    layers = as_layers(inputs)
    return layer_norm_spread(y.reshape(layers["x"].shape), **layers).reshape(y.shape)
