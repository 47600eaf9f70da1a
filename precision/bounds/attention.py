"""Bound for scaled dot product attention: a product, a softmax, a product.

To first order |o^ - o| <= sum_j p_j |v_j| (rel_j + 2 |d|_inf + [u of a cast of p] + gamma_n)
+ u |o|, with score errors d_j <= gamma_d |q|'|k_j| scale; here with the exact factors.
"""

from __future__ import annotations

import torch

from .gates import soft_cap_error
from .products import dot_error
from .rounding_model import RoundingModel
from .softmax import softmax_error, softmax_underflow

Tensor = torch.Tensor


def attention_bound(
    model: RoundingModel,
    y: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    visible: Tensor,
    cap: float | None = None,
) -> Tensor:
    group = q.shape[-3] // k.shape[-3]
    keys, values = (x.double().repeat_interleave(group, -3) for x in (k, v))
    scores, score_error = _scores(model, q.double(), keys, scale)
    if cap is not None:
        scores = cap * (scores / cap).tanh()
        score_error = score_error + soft_cap_error(model, scores.abs() + score_error, cap)
    scores = scores.masked_fill(~visible, -torch.inf)

    p = scores.softmax(-1)
    p_error = p * softmax_error(model, scores, score_error) + softmax_underflow(model, p)
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
    return model.cast("output", y, model.within_range(error, reach + error))


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
