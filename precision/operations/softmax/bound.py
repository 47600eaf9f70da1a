"""Bounds and conditions of shifted softmax and logsumexp.

Blanchard, Higham and Higham, IMA J. Numer. Anal. 41, 2021, written for errors of the exponents:
whatever moves score j by at most d_j moves p_j by the factor exp(d_j) * sum p exp(d) at most,
either way (Jensen).
"""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel

Tensor = torch.Tensor


def softmax_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    relative = softmax_error(model, x.double())
    return model.cast("output", y, relative * y + softmax_underflow(model, y))


def logsumexp_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    scores = x.double()
    peak = scores.amax(-1, keepdim=True)
    exponents = _exponents(model, scores - peak, 0.0)
    sums = _sum_error(model, scores.softmax(-1), exponents)[..., 0].log1p()
    log = (y - peak[..., 0]).abs()
    error = sums + (model.function + model.steps(3)) * (log + sums) + model.underflow
    error = error + model.steps(1) * (y.abs() + error) + 2 * model.underflow
    return model.cast("output", y, error)


def softmax_error(model: RoundingModel, scores: Tensor, given: Tensor | float = 0.0) -> Tensor:
    """Relative, where `scores` (fp64, -inf at hidden keys) come with absolute errors `given`."""
    shifted = scores - scores.amax(-1, keepdim=True)
    exponents = _exponents(model, shifted, given)
    sums = _sum_error(model, scores.softmax(-1), exponents)
    return exponents.exp() * (1 + sums) * (1 + model.steps(2)) - 1


def softmax_underflow(model: RoundingModel, p: Tensor) -> Tensor:
    """Exponentials and quotients below the smallest normal number err absolutely."""
    lost = 2 * model.underflow
    if "exponentials" in model.casts:
        lost += 2 * model.lost(model.casts["exponentials"])
    return torch.full_like(p, lost)


def _exponents(model: RoundingModel, shifted: Tensor, given: Tensor | float) -> Tensor:
    """How far the logarithm of each exponential can be off; 0 at hidden keys."""
    hidden = shifted == -torch.inf
    given = torch.as_tensor(given, dtype=torch.float64).expand_as(shifted).masked_fill(hidden, 0.0)
    distance = shifted.abs().masked_fill(hidden, 0.0) + given + given.amax(-1, keepdim=True)
    error = given + model.steps(1) * distance + model.exponential(distance)
    error = error + (4 * model.underflow if model.may_flush else 0.0)
    if "exponentials" in model.casts:
        error = error + 2 * model.casts["exponentials"].unit_roundoff
    return error.masked_fill(hidden, 0.0)


def _sum_error(model: RoundingModel, p: Tensor, exponents: Tensor) -> Tensor:
    n = p.shape[-1]
    mean = (p * exponents.exp()).sum(-1, keepdim=True)
    growth = model.rescaled(n, model.reduction(n, exact_terms=True))
    error = (mean + n * model.underflow) * (1 + growth) - 1
    if "sum" in model.casts:
        error = (1 + error) * (1 + model.casts["sum"].unit_roundoff) - 1
    return error


def softmax_spread(y: Tensor, x: Tensor) -> Tensor:
    """dp_i/dx_j = p_i (delta_ij - p_j); a score of -inf stays what it is."""
    scores = x.double().masked_fill(x == -torch.inf, 0.0).abs()
    mean = (y * scores).sum(-1, keepdim=True)
    return y * (scores * (1 - y) + (mean - y * scores).clamp(min=0.0))


def logsumexp_spread(y: Tensor, x: Tensor) -> Tensor:
    scores = x.double()
    return (scores.softmax(-1) * scores.masked_fill(x == -torch.inf, 0.0).abs()).sum(-1)
