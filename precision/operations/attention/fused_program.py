"""Attention in one with what somebody fused into it, over any `Arithmetic`.

What lies between may be rounded to storage or be kept: an enclosure holds the results of either.
T query positions, K keys, H heads, G key/value heads, d d_head, D d_model.
"""

from __future__ import annotations

from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..norms.program import rms_norm_within
from ..products.program import linear
from ..rope.program import rotated
from ..softmax.program import ratio
from .program import scores_between, softmax_parts

V = TypeVar("V")


def fused_attention(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Attention in one call: scores and softmax in `compute`, whatever is stored of the softmax."""
    q, k, v = (ar.given(inputs[name]) for name in "qkv")
    return ar.cast(_attended(ar, q, k, v, inputs), "output")


def rotated_attention(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Attention of queries and keys that are turned to their positions first."""
    q, k, v = (ar.given(inputs[name]) for name in "qkv")
    return ar.cast(_turned_and_attended(ar, q, k, v, inputs), "output")


def attention_block(ar: Arithmetic[V], inputs: Inputs) -> V:
    """x [K, D] through its projections, their norms, RoPE, attention and the last projection; the
    rows from `past` on."""
    x = ar.given(inputs["x"])
    q, k, v = (_heads(ar, x, inputs, name) for name in "qkv")
    q = ar.shape(lambda t: t[..., inputs["past"] :, :], q)
    mixed = ar.may_cast(_turned_and_attended(ar, q, k, v, inputs), "attended")
    rows = ar.shape(lambda t: t.transpose(-3, -2).flatten(-2), mixed)
    return ar.cast(linear(ar, rows, inputs, "o"), "output")


def _heads(ar: Arithmetic[V], x: V, inputs: Inputs, name: str) -> V:
    """Queries, keys or values [H, K, d], normed where they are."""
    d_head, weight = inputs["d_head"], inputs.get(f"{name}_norm")
    projected = ar.may_cast(linear(ar, x, inputs, name), "projected")
    heads = ar.shape(lambda t: t.unflatten(-1, (-1, d_head)).transpose(-3, -2), projected)
    if weight is None:
        return heads
    normed = rms_norm_within(ar, heads, ar.given(weight), inputs["eps"], d_head)
    return ar.may_cast(normed, "projected")


def _turned_and_attended(ar: Arithmetic[V], q: V, k: V, v: V, inputs: Inputs) -> V:
    def turned(x: V, rope: Inputs) -> V:
        half = rope["x"].shape[-1] // 2
        return ar.may_cast(rotated(ar, x, rope, half, ar.may_cast), "rotated")

    return _attended(ar, turned(q, inputs["rope_q"]), turned(k, inputs["rope_k"]), v, inputs)


def _attended(ar: Arithmetic[V], q: V, k: V, v: V, inputs: Inputs) -> V:
    """The exponentials are stored before they are divided, after it, or not at all."""
    k, v = (ar.shape(lambda t: t.repeat_interleave(inputs["group"], -3), x) for x in (k, v))
    scores = ar.where(inputs["visible"], scores_between(ar, q, k, inputs), -float("inf"))
    exponentials, total = softmax_parts(ar, scores, inputs)

    def deferred() -> V:
        weights = ar.may_cast(exponentials, "exponentials")
        return ratio(ar, ar.dot(weights, v, rescaled=True), total)

    def divided() -> V:
        pattern = ar.may_cast(ratio(ar, exponentials, total), "probabilities")
        return ar.dot(pattern, v, updates=2, rescaled=True)

    mixed = ar.either(deferred, divided)
    return ar.where(~inputs["bare"], mixed, 0.0) if inputs["empty"] == "zero" else mixed
