"""Bound and condition of a sum over ranks."""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel

Tensor = torch.Tensor


def rank_sum_bound(
    model: RoundingModel, y: Tensor, x: Tensor, average: bool, order_of_ranks: Tensor
) -> Tensor:
    """gamma times the sum of magnitudes, of which a mean is a share."""
    ranks, size = x.shape[-1], x.double().abs().sum(-1)
    error = model.reduction(ranks, exact_terms=True) * size
    error = error + model.flushed(x.double()).sum(-1)
    error = error + (ranks * model.underflow if model.may_flush else 0.0)
    reach = size + error
    error = model.cast("sum", x.double().sum(-1), error)
    if average:
        error = error / ranks + model.steps(2) * (y.abs() + error / ranks) + 2 * model.underflow
    return model.cast("output", y, model.within_range(error, reach))


def rank_sum_spread(y: Tensor, x: Tensor, average: bool, order_of_ranks: Tensor) -> Tensor:
    size = x.double().abs().sum(-1)
    return size / x.shape[-1] if average else size
