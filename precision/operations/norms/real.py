"""RMSNorm, LayerNorm and GroupNorm over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def rms_norm(over: Algebra, x: Tensor, weight: Tensor | None, eps: float) -> Array:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis."""
    r = over.lift(x)
    square = over.sum(r * r) / float(x.shape[-1])
    y = r / over.sqrt(square + over.lift(eps))
    return y if weight is None else y * over.lift(weight)


def layer_norm(
    over: Algebra, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis."""
    n = float(x.shape[-1])
    r = over.lift(x)
    centred = r - over.sum(r) / n
    variance = over.sum(centred * centred) / n
    y = centred / over.sqrt(variance + over.lift(eps))
    if weight is not None:
        y = y * over.lift(weight)
    return y if bias is None else y + over.lift(bias)


def group_norm(
    over: Algebra,
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Array:
    """Deviations over the root of the variance of each group of channels, channel by channel."""
    rows, channels = x.shape[:2]
    r = over.lift(x).reshape(rows, groups, -1)
    deviation = r - over.sum(r) / float(r.shape[-1])
    variance = over.sum(deviation * deviation) / float(r.shape[-1])
    y = (deviation / over.sqrt(variance + over.lift(eps))).reshape(rows, channels, -1)
    if weight is not None:
        y = y * over.lift(weight)[:, None]
    if bias is not None:
        y = y + over.lift(bias)[:, None]
    return y.reshape(*x.shape)
