"""Attention that sees other keys, weighs them otherwise, or forgets an argument."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

ATTENTION = PrecisionContract("attention")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    past: int | None = None,
    cap: float | None = None,
    *,
    cap_hidden: bool = False,
    tiled: bool = False,
    wider: int = 0,
) -> Tensor:
    """Eager attention in fp64, rounded once; the last three are bugs."""
    group = q.shape[0] // k.shape[0]
    if tiled:
        keys, values = (x.double().repeat(group, 1, 1) for x in (k, v))
    else:
        keys, values = (x.double().repeat_interleave(group, 0) for x in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q.double() @ keys.mT * scale
    visible = _visible(q.shape[1], k.shape[1], causal, window, past, wider)
    if cap_hidden:
        scores = scores.masked_fill(~visible, -math.inf)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if not cap_hidden:
        scores = scores.masked_fill(~visible, -math.inf)
    return (scores.softmax(-1) @ values).float()


def _visible(
    queries: int, keys: int, causal: bool, window: int | None, past: int | None, wider: int
) -> Tensor:
    past = keys - queries if past is None else past
    distance = torch.arange(queries)[:, None] + past - torch.arange(keys)
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return visible if window is None else visible & (distance < window + wider)


@functools.wraps(attention)
def _window_wider(**inputs: Any) -> Tensor:
    return attention(**inputs, wider=1)


@functools.wraps(attention)
def _window_narrower(**inputs: Any) -> Tensor:
    return attention(**inputs, wider=-1)


@functools.wraps(attention)
def _top_left(**inputs: Any) -> Tensor:
    return attention(**{**inputs, "past": 0})


@functools.wraps(attention)
def _past_ignored(**inputs: Any) -> Tensor:
    return attention(**{**inputs, "past": None})


@functools.wraps(attention)
def _scale_ignored(**inputs: Any) -> Tensor:
    return attention(**{**inputs, "scale": None})


@functools.wraps(attention)
def _cap_ignored(**inputs: Any) -> Tensor:
    return attention(**{**inputs, "cap": None})


@functools.wraps(attention)
def _tiled(**inputs: Any) -> Tensor:
    return attention(**inputs, tiled=True)


@functools.wraps(attention)
def _capped_after_mask(**inputs: Any) -> Tensor:
    return attention(**inputs, cap_hidden=True)


def _merged(base: float) -> Any:
    """Two halves of the keys, merged by their log-sum-exps, which come to a base."""

    def merged(q: Tensor, k: Tensor, v: Tensor, scale: float, past: int | None = None) -> Tensor:
        group, half = q.shape[0] // k.shape[0], k.shape[1] // 2
        keys, values = (x.double().repeat_interleave(group, 0) for x in (k, v))
        scores = q.double() @ keys.mT * scale
        parts = [slice(0, half), slice(half, None)] if half else [slice(0, None)]
        mixed = [scores[..., part].softmax(-1) @ values[:, part] for part in parts]
        sums = torch.stack([scores[..., p].logsumexp(-1) / math.log(base) for p in parts])
        weights = sums.softmax(0)[..., None]  # exp, whatever the base was
        return sum(w * m for w, m in zip(weights, mixed, strict=True)).float()

    return merged


def _inputs(**options: Any) -> dict[str, Any]:
    q, k, v = normal(4, 5, 16), normal(2, 9, 16, seed=1), normal(2, 9, 16, seed=2)
    return {"q": q, "k": k, "v": v, "scale": 0.25, "causal": True, **options}


def _all_keys() -> dict[str, Any]:
    q, k, v = normal(4, 5, 16), normal(2, 9, 16, seed=1), normal(2, 9, 16, seed=2)
    return {"q": q, "k": k, "v": v, "scale": 0.25}


BUGS = (
    PublicBug(
        ("huggingface/transformers#39408",),
        "a sliding window one key too wide",
        ATTENTION, _window_wider, attention, lambda: _inputs(window=3), "attention",
    ),
    PublicBug(
        ("vllm-project/vllm#3385",),
        "a sliding window one key too narrow",
        ATTENTION, _window_narrower, attention, lambda: _inputs(window=3), "attention",
    ),
    PublicBug(
        ("ml-explore/mlx#2835",),
        "the causal mask aligned to the top left where there are more keys than queries",
        ATTENTION, _top_left, attention, _inputs,
    ),
    PublicBug(
        ("microsoft/onnxruntime#29020",),
        "the queries' position in the cache ignored",
        ATTENTION, _past_ignored, attention, lambda: _inputs(past=1),
    ),
    PublicBug(
        ("mlc-ai/mlc-llm#3426",),
        "the scale ignored",
        ATTENTION, _scale_ignored, attention, lambda: _inputs(scale=0.7), "attention",
    ),
    PublicBug(
        ("onnx/onnx#7274",),
        "key heads of grouped queries tiled, not interleaved",
        ATTENTION, _tiled, attention, _inputs, "attention",
    ),
    PublicBug(
        ("onnx/onnx#7865", "flashinfer-ai/flashinfer#350"),
        "the soft cap after the mask: hidden keys keep a finite score",
        ATTENTION, _capped_after_mask, attention, lambda: _inputs(cap=2.0), "attention",
    ),
    PublicBug(
        ("sgl-project/sgl-kernel-xpu#491",),
        "the soft cap dropped",
        ATTENTION, _cap_ignored, attention, lambda: _inputs(cap=2.0), "attention",
    ),
    PublicBug(
        ("sgl-project/sglang#40903", "sgl-project/sglang#35045"),
        "parts merged by base-2 log-sum-exps as if they were natural ones",
        ATTENTION, _merged(2.0), _merged(math.e), _all_keys,
    ),
)  # fmt: skip
