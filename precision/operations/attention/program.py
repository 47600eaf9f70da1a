"""Attention and its soft cap over any `Arithmetic`.

T query positions, K keys, H heads, G key/value heads, d d_head.
"""

from __future__ import annotations

import math
from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..softmax.program import ratio

V = TypeVar("V")


def attention(ar: Arithmetic[V], inputs: Inputs, hidden: float = -math.inf) -> V:
    """softmax(scale q k^T, soft-capped) v over the visible keys; q [H, T, d], k, v [G, K, d].

    `hidden` is the score of the other keys.
    """
    q, k, v = (ar.given(inputs[name]) for name in "qkv")
    visible_TK, group = inputs["visible"], inputs["q"].shape[-3] // inputs["k"].shape[-3]
    k = ar.shape(lambda t: t.repeat_interleave(group, -3).mT, k)
    v = ar.shape(lambda t: t.repeat_interleave(group, -3), v)
    # The scale, or its root, may be multiplied into q and k first: four roundings of each product.
    updates = 0 if ar.declares("scores") or _power_of_four(inputs["scale"]) else 4
    scores = ar.cast(ar.dot(q, k, updates=updates), "scores")
    scaled = ar.cast(ar.mul(scores, ar.constant(inputs["scale"])), "scaled")
    if inputs["cap"] is not None:
        scaled = _soft_cap(ar, scaled, inputs["cap"])
    exponentials = ar.exp(ar.shifted(ar.where(visible_TK, scaled, hidden))[0])
    total = ar.sum(exponentials, rescaled=True)
    if ar.declares("exponentials"):
        mixed = ar.dot(ar.cast(exponentials, "exponentials"), v, rescaled=True)
        return ar.cast(ratio(ar, mixed, total), "output")
    pattern = ar.cast(ratio(ar, exponentials, total), "probabilities")
    if ar.declares("probabilities"):
        return ar.cast(ar.dot(pattern, v), "output")
    # Dividing by the sum may wait until the values are summed: two roundings of each product.
    return ar.cast(ar.dot(pattern, v, updates=2, rescaled=True), "output")


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
