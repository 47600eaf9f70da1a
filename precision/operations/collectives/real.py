"""Sums over ranks over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def rank_sum(over: Algebra, x: Tensor, average: bool, order_of_ranks: Tensor) -> Array:
    total = over.sum(over.lift(x))[..., 0]
    return total / float(x.shape[-1]) if average else total
