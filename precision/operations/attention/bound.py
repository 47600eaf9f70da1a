"""Bounds and conditions of attention, a product, a softmax and a product, and of its soft cap.

To first order |o^ - o| <= sum_j p_j |v_j| (rel_j + 2 |d|_inf + [u of a cast of p] + gamma_n)
+ u |o|, with score errors d_j <= gamma_d |q|'|k_j| scale; here with the exact factors.
"""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel
from ..products.bound import dot_error
from ..softmax.bound import softmax_error, softmax_underflow

Tensor = torch.Tensor


def attention_bound(
    model: RoundingModel,
    y: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    cap: float | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    slopes: Tensor | None,
    empty: str | None,
    visible: Tensor,
    bare: Tensor,
    behind: Tensor,
) -> Tensor:
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.double().repeat_interleave(group, -3) for x in (k, v))
    scores, score_error = _scores(model, q.double(), keys, scale)
    if cap is not None:
        scores = cap * (scores / cap).tanh()
        score_error = score_error + soft_cap_error(model, scores.abs() + score_error, cap)
    scores, score_error = _biased(model, scores, score_error, bias, slopes, behind)
    if empty is not None:
        scores, score_error = scores.masked_fill(bare, 0.0), score_error.masked_fill(bare, 0.0)
    scores = scores.masked_fill(~visible, -torch.inf)

    p, p_error = _pattern(model, scores, score_error, sinks)
    p_error = model.cast("probabilities", p, p_error).masked_fill(~visible, 0.0)

    reach = (p + p_error) @ values.abs()
    # Rounded factors, products and sums; dividing by the softmax's sum may come last.
    n = k.shape[-2]
    growth = model.rescaled(n, model.dot_growth(n, exact_terms=False))
    growth = (1 + growth) * (1 + model.steps(2)) - 1
    error = p_error @ values.abs() + growth * reach + n * model.underflow
    error = error + (p + p_error) @ model.flushed(values)
    if "inputs" in model.casts:
        lost = model.lost(model.casts["inputs"])
        error = error + 4 * lost * (1 + values.abs().sum(-2, keepdim=True))
    size = reach + error
    if "probabilities" not in model.casts:  # summed before they are divided
        size = size * (scores - scores.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)
    error = model.cast("output", y, model.within_range(error, size))
    return error.masked_fill(bare, 0.0) if empty == "zero" else error


def _biased(
    model: RoundingModel,
    scores: Tensor,
    error: Tensor,
    bias: Tensor | None,
    slopes: Tensor | None,
    behind: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scores with what is added to them, each by one addition; ALiBi's is a product."""
    if bias is not None:
        scores, error = scores + bias.double(), error + model.flushed(bias.double())
        error = error + model.steps(1) * (scores.abs() + error) + model.underflow
    if slopes is not None:
        slope = slopes.double()[:, None, None]
        added = slope * behind
        lost = model.flushed(slope) * behind.abs()
        error = error + lost + model.steps(1) * added.abs() + model.underflow
        scores = scores + added
        error = error + model.steps(1) * (scores.abs() + error) + model.underflow
    return scores, error


def _pattern(
    model: RoundingModel, scores: Tensor, score_error: Tensor, sinks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Probabilities of the keys, less those of sinks, and their errors."""
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)
        lost = model.flushed(column)
        scores, score_error = (torch.cat(x, -1) for x in ((scores, column), (score_error, lost)))
    p = scores.softmax(-1)
    p_error = p * softmax_error(model, scores, score_error) + softmax_underflow(model, p)
    return (p, p_error) if sinks is None else (p[..., :-1], p_error[..., :-1])


def _scores(
    model: RoundingModel, queries: Tensor, keys: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    magnitude, dot = dot_error(model, queries, keys.mT)
    # The scale, or its root, may go into both factors first: four roundings.
    dot = dot + model.steps(4) * (magnitude + dot)
    products = queries @ keys.mT
    error = abs(scale) * model.cast("scores", products, model.within_range(dot, magnitude + dot))
    scores = products * scale
    error = error + model.steps(2) * (scores.abs() + error) + model.underflow
    return scores, model.cast("scaled", scores, error)


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


def attention_spread(
    y: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    cap: float | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    slopes: Tensor | None,
    empty: str | None,
    visible: Tensor,
    bare: Tensor,
    behind: Tensor,
) -> Tensor:
    """do/ds_j = p_j (v_j - o), and relative errors of q or k move s_j by scale |q||k_j|, times the
    slope of a soft cap."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.double().repeat_interleave(group, -3) for x in (k, v))
    queries = q.double()
    scores, slope = queries @ keys.mT * scale, torch.ones(())
    if cap is not None:
        slope = _soft_cap_slope(scores, cap)
        scores = cap * (scores / cap).tanh()
    if bias is not None:
        scores = scores + bias.double()
    if slopes is not None:
        scores = scores + slopes.double()[:, None, None] * behind
    scores = scores.masked_fill(bare, 0.0) if empty else scores
    scores = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    p = scores.softmax(-1)[..., : values.shape[-2]]
    moved = p * slope * (queries.abs() @ keys.abs().mT) * abs(scale)
    through_scores = moved @ values.abs() + moved.sum(-1, keepdim=True) * y.abs()
    spread = p @ values.abs() + through_scores
    return spread.masked_fill(bare, 0.0) if empty == "zero" else spread


def soft_cap_spread(y: Tensor, x: Tensor, cap: float) -> Tensor:
    r = x.double()
    return r.abs() * _soft_cap_slope(r, cap)


def _soft_cap_slope(x: Tensor, cap: float) -> Tensor:
    return torch.cosh(x / cap) ** -2
