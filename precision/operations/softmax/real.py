"""Softmax and logsumexp over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def softmax(over: Algebra, x: Tensor) -> Array:
    return softmax_of(over, over.lift(x))


def softmax_of(over: Algebra, x: Array) -> Array:
    e = over.exp(x - over.peak(x))
    return e / over.sum(e)


def logsumexp(over: Algebra, x: Tensor) -> Array:
    """Over the last axis, which goes."""
    r = over.lift(x)
    peak = over.peak(r)
    return (peak + over.log(over.sum(over.exp(r - peak))))[..., 0]
