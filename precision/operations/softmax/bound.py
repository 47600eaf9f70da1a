"""Bounds and conditions of shifted softmax, its logarithm, logsumexp and cross entropy.

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


def log_softmax_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    """The shifted logit and the logarithm of the sum err by themselves; their difference once."""
    scores = x.double()
    peak = scores.amax(-1, keepdim=True)
    shifted = scores - peak
    exponents = _exponents(model, shifted, 0.0)
    sums = _sum_error(model, scores, exponents).log1p()
    log = scores.logsumexp(-1, keepdim=True) - peak
    error = sums + (model.function + model.steps(3)) * (log + sums) + model.underflow
    if "logarithm" in model.casts:
        error = error + model.casts["logarithm"].unit_roundoff * (log + error)
    error = error + model.steps(1) * shifted.abs() + model.flushed(scores)
    error = error + model.steps(1) * (y.abs() + error) + 2 * model.underflow
    return model.cast("output", y, model.within_range(error, shifted.abs() + log))


def logsumexp_bound(model: RoundingModel, y: Tensor, x: Tensor) -> Tensor:
    return model.cast("output", y, _logsumexp_error(model, y, x.double()))


def _logsumexp_error(model: RoundingModel, y: Tensor, scores: Tensor) -> Tensor:
    peak = scores.amax(-1, keepdim=True)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    exponents = _exponents(model, scores - peak, 0.0)
    sums = _sum_error(model, scores, exponents)[..., 0].log1p()
    log = (y - peak[..., 0]).abs()
    error = sums + (model.function + model.steps(3)) * (log + sums) + model.underflow
    return error + model.steps(1) * (y.abs() + error) + 2 * model.underflow


def cross_entropy_bound(
    model: RoundingModel,
    y: Tensor,
    x: Tensor,
    targets: Tensor,
    smoothing: float,
    reduction: str,
    counted: Tensor,
) -> Tensor:
    """Each class errs with logsumexp and its own logit; averages cannot cancel more than that.

    Whatever sums logits or losses over the classes does so with the weights q of the loss.
    """
    scores = x.double()
    n, lse = scores.shape[-1], scores.logsumexp(-1)
    lse_error = _logsumexp_error(model, lse, scores)[:, None]
    reach = lse.abs()[:, None] + scores.abs().amax(-1, keepdim=True) + scores.abs() + lse_error
    each = lse_error + model.steps(4) * reach + model.flushed(scores) + 4 * model.underflow
    q = _weights(scores, targets, smoothing, counted)
    growth = (1 + model.reduction(n)) * (1 + model.steps(8)) - 1 if smoothing else model.steps(1)
    error = (q * (each + growth * (reach + each))).sum(-1) + 4 * model.underflow
    losses = (q * (lse[:, None] - scores)).sum(-1)
    error = model.within_range(error, (n if smoothing else 1) * reach.amax(-1))
    error = model.cast("losses", losses, error).masked_fill(~counted, 0.0)
    if reduction == "none":
        return model.cast("output", y, error)
    count = int(counted.sum())
    total, size = error.sum(), (losses.abs() + error).sum()
    growth = (1 + model.reduction(len(losses))) * (1 + model.steps(3)) - 1
    mean = (total + growth * size) / count + 4 * model.underflow
    return model.cast("output", y, model.within_range(mean, size))


def _weights(x: Tensor, targets: Tensor, smoothing: float, counted: Tensor) -> Tensor:
    """The distribution that a row is compared with, [T, V]; zeros where it is ignored."""
    hit = torch.nn.functional.one_hot(targets.where(counted, 0), x.shape[-1])
    return (hit * (1 - smoothing) + smoothing / x.shape[-1]) * counted[:, None]


def softmax_error(model: RoundingModel, scores: Tensor, given: Tensor | float = 0.0) -> Tensor:
    """Relative, where `scores` (fp64, -inf at hidden keys) come with absolute errors `given`."""
    shifted = scores - scores.amax(-1, keepdim=True)
    exponents = _exponents(model, shifted, given)
    sums = _sum_error(model, scores, exponents)
    relative = exponents.exp() * (1 + sums) * (1 + model.steps(2)) - 1
    return relative.clamp(max=1e300)  # of what vanishes, which has any error, and is 0 all the same


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


def _sum_error(model: RoundingModel, scores: Tensor, exponents: Tensor) -> Tensor:
    """Of the sum of exponentials, relatively: each by its share, in logarithms, as one that
    vanishes may have any error."""
    n = scores.shape[-1]
    mean = (scores.log_softmax(-1) + exponents).exp().sum(-1, keepdim=True)
    mean = torch.where(mean.isnan(), 1.0, mean)  # all hidden: there is no sum to be off
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


def log_softmax_spread(y: Tensor, x: Tensor) -> Tensor:
    """dy_i/dx_j = delta_ij - p_j; a score of -inf stays what it is."""
    scores = x.double().masked_fill(x == -torch.inf, 0.0).abs()
    p = x.double().softmax(-1)
    mean = (p * scores).sum(-1, keepdim=True)
    return (scores * (1 - p) + (mean - p * scores).clamp(min=0.0)).nan_to_num(0.0)


def logsumexp_spread(y: Tensor, x: Tensor) -> Tensor:
    scores = x.double()
    return (scores.softmax(-1) * scores.masked_fill(x == -torch.inf, 0.0).abs()).sum(-1)


def cross_entropy_spread(
    y: Tensor, x: Tensor, targets: Tensor, smoothing: float, reduction: str, counted: Tensor
) -> Tensor:
    """dL/dx_j = p_j - q_j of a row that counts."""
    scores = x.double()
    slope = (scores.softmax(-1) - _weights(scores, targets, smoothing, counted)).abs()
    each = (slope * scores.abs()).sum(-1).masked_fill(~counted, 0.0)
    return each if reduction == "none" else each.sum() / int(counted.sum())
