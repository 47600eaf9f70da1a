"""Attention and its soft cap over the real numbers.

H heads, G key/value heads, T queries, K keys, d and h d_head.
"""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array
from ..softmax.real import softmax_of

Tensor = torch.Tensor


def attention(
    over: Algebra,
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
) -> Array:
    """q [.., H, T, d], k [.., G, K, d], v [.., G, K, h], visible [.., T, K] -> [.., H, T, h]."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = (over.repeat(over.lift(x), group) for x in (k, v))
    scores = over.matmul(over.lift(q), over.transpose(keys)) * over.lift(scale)
    if cap is not None:
        scores = _soft_cap(over, scores, cap)
    if bias is not None:
        scores = scores + over.lift(bias)
    if slopes is not None:
        scores = scores + over.lift(slopes[:, None, None]) * over.lift(behind)
    if empty is not None:
        scores = scores * over.lift(~bare)
    seen = over.hide(scores, visible)
    if sinks is None:
        pattern = softmax_of(over, seen)
    else:
        column = over.lift(sinks.double()[:, None, None].expand(*scores.shape[:-1], 1))
        pattern = softmax_of(over, over.concatenate([seen, column]))[..., :-1]
    mixed = over.matmul(pattern, values)
    return mixed * over.lift(~bare) if empty == "zero" else mixed


def soft_cap(over: Algebra, x: Tensor, cap: float) -> Array:
    """cap * tanh(x / cap)."""
    return _soft_cap(over, over.lift(x), cap)


def _soft_cap(over: Algebra, r: Array, cap: float) -> Array:
    return over.tanh(r / over.lift(cap)) * over.lift(cap)
