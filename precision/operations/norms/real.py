"""RMSNorm and LayerNorm over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def rms_norm(over: Algebra, x: Tensor, weight: Tensor, eps: float) -> Array:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis."""
    r = over.lift(x)
    square = over.sum(r * r) / float(x.shape[-1])
    return r / over.sqrt(square + over.lift(eps)) * over.lift(weight)


def layer_norm(over: Algebra, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis."""
    n = float(x.shape[-1])
    r = over.lift(x)
    centred = r - over.sum(r) / n
    variance = over.sum(centred * centred) / n
    y = centred / over.sqrt(variance + over.lift(eps))
    return y * over.lift(weight) + over.lift(bias)
