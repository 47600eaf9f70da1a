"""Attention and its soft cap over any `Arithmetic`.

T query positions, K keys, H heads, G key/value heads, d d_head.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..softmax.program import ratio

V = TypeVar("V")


def attention(ar: Arithmetic[V], inputs: Inputs, hidden: float = -math.inf) -> V:
    """softmax(scale q k^T, soft-capped, plus biases) v over the visible keys; q [H, T, d],
    k, v [G, K, d].

    `hidden` is the score of the other keys.
    """
    v = ar.shape(lambda t: t.repeat_interleave(_group(inputs), -3), ar.given(inputs["v"]))
    scores = ar.where(inputs["visible"], scores_of(ar, inputs), hidden)
    exponentials, total = softmax_parts(ar, scores, inputs)
    return ar.cast(_mixed(ar, exponentials, total, v, inputs), "output")


def softmax_parts(ar: Arithmetic[V], scores: V, inputs: Inputs) -> tuple[V, V]:
    """exp(score - max) of every key, and their sum, in which sinks count."""
    if inputs["sinks"] is not None:
        scores = ar.shape(_with_sinks, scores, ar.given(inputs["sinks"]))
    exponentials = ar.exp(ar.shifted(scores)[0])
    total = ar.sum(exponentials, rescaled=True)
    if inputs["sinks"] is not None:
        exponentials = ar.shape(lambda t: t[..., :-1], exponentials)
    return exponentials, total


def _mixed(ar: Arithmetic[V], exponentials: V, total: V, v: V, inputs: Inputs) -> V:
    def deferred() -> V:
        """The values summed before they are divided, of which the sum may overflow."""
        weights = ar.cast(exponentials, "exponentials")
        return ratio(ar, ar.dot(weights, v, rescaled=True), total)

    if ar.declares("exponentials"):
        mixed = deferred()
    else:
        pattern = ar.cast(ratio(ar, exponentials, total), "probabilities")
        if ar.declares("probabilities"):
            mixed = ar.dot(pattern, v)
        else:
            # Divided as they are summed: two roundings a product.
            mixed = ar.either(lambda: ar.dot(pattern, v, updates=2, rescaled=True), deferred)
    return ar.where(~inputs["bare"], mixed, 0.0) if inputs["empty"] == "zero" else mixed


def scores_of(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Before any key is hidden: [H, T, K]."""
    k = ar.shape(lambda t: t.repeat_interleave(_group(inputs), -3), ar.given(inputs["k"]))
    return scores_between(ar, ar.given(inputs["q"]), k, inputs)


def scores_between(ar: Arithmetic[V], q: V, k: V, inputs: Inputs) -> V:
    """The scores of queries and keys, both [H, .., d], scaled, capped and biased."""
    k = ar.shape(lambda t: t.mT, k)
    # The scale, or its root, may be multiplied into q and k first: four roundings of each product.
    updates = 0 if ar.declares("scores") or _power_of_four(inputs["scale"]) else 4
    scores = ar.cast(ar.dot(q, k, updates=updates), "scores")
    scaled = ar.cast(ar.mul(scores, ar.constant(inputs["scale"])), "scaled")
    if inputs["cap"] is not None:
        scaled = _soft_cap(ar, scaled, inputs["cap"])
    if inputs["bias"] is not None:
        scaled = ar.add(scaled, ar.given(inputs["bias"]))
    if inputs["slopes"] is not None:
        slopes_H11 = ar.shape(lambda t: t[:, None, None], ar.given(inputs["slopes"]))
        scaled = ar.add(scaled, ar.mul(slopes_H11, ar.given(inputs["behind"])))
    return ar.where(~inputs["bare"], scaled, 0.0) if inputs["empty"] else scaled


def _group(inputs: Inputs) -> int:
    """Heads that share a key/value head."""
    return int(inputs["q"].shape[-3] // inputs["k"].shape[-3])


def _with_sinks(scores: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """One more key for each head, of the score of its sink."""
    column = sinks[:, None, None].expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], -1)


def soft_cap(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(_soft_cap(ar, ar.given(inputs["x"]), inputs["cap"]), "output")


def _soft_cap(ar: Arithmetic[V], x: V, cap: float) -> V:
    """cap tanh(x / cap) (Gemma 2, arXiv 2408.00118)."""
    bend = ar.constant(cap)
    quotient = ar.cast(ratio(ar, x, bend), "quotient")
    return ar.mul(ar.cast(ar.tanh(quotient), "tanh"), bend)


def _power_of_four(scale: float) -> bool:
    fraction, exponent = math.frexp(scale)
    return fraction == 0.5 and exponent % 2 == 1
