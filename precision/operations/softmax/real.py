"""Softmax, its logarithm, logsumexp and cross entropy over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def softmax(over: Algebra, x: Tensor) -> Array:
    return softmax_of(over, over.lift(x))


def softmax_of(over: Algebra, x: Array) -> Array:
    e = over.exp(x - over.peak(x))
    return e / over.sum(e)


def log_softmax(over: Algebra, x: Tensor) -> Array:
    r = over.lift(x)
    shifted = r - over.peak(r)
    return shifted - over.log(over.sum(over.exp(shifted)))


def logsumexp(over: Algebra, x: Tensor) -> Array:
    """Over the last axis, which goes."""
    r = over.lift(x)
    peak = over.peak(r)
    return (peak + over.log(over.sum(over.exp(r - peak))))[..., 0]


def cross_entropy(
    over: Algebra, x: Tensor, targets: Tensor, smoothing: float, reduction: str, counted: Tensor
) -> Array:
    """sum_j q_j (logsumexp(x) - x_j) of each row that counts, x [T, V]; or their mean."""
    r = over.lift(x)
    peak = over.peak(r)
    surprise = peak + over.log(over.sum(over.exp(r - peak))) - r
    s = over.lift(smoothing)
    hit = torch.nn.functional.one_hot(targets.where(counted, 0), x.shape[-1])
    q = over.lift(hit * counted[:, None]) * (over.lift(1.0) - s)
    q = q + over.lift(counted[:, None].expand(x.shape)) * s / float(x.shape[-1])
    losses = over.sum(q * surprise)[..., 0]
    if reduction == "none":
        return losses
    return over.sum(losses)[..., 0] / float(counted.sum())
