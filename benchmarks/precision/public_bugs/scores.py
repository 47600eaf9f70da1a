"""What is added to attention's scores, and sequences that are packed or paged."""

from __future__ import annotations

import math
from typing import Any

import torch

from ....precision.contract import PrecisionContract
from ....precision.layouts import gathered, packed, paged, sequences
from ....precision.operations import validate_inputs
from .bug import PublicBug, Tensor, normal

ATTENTION = PrecisionContract("attention")


def _attention(*, bug: str = "", **inputs: Any) -> Tensor:
    prepared = validate_inputs("attention", inputs)
    q, k, v = (prepared[name].double() for name in "qkv")
    group = q.shape[0] // k.shape[0]
    keys, values = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scale, bias, slopes = (prepared[name] for name in ("scale", "bias", "slopes"))
    scores = q @ keys.mT * scale
    if bias is not None:
        scores = scores + bias.double() * (scale if bug == "bias scaled" else 1.0)
    if slopes is not None:
        behind = -prepared["behind"] if bug == "slopes reversed" else prepared["behind"]
        behind = behind * 0 if bug == "slopes lost" and q.shape[1] < k.shape[1] else behind
        scores = scores + slopes.double()[:, None, None] * behind
    scores = scores.masked_fill(~prepared["visible"], -math.inf)
    if (empty := prepared["empty"]) is not None and bug != "bare rows":
        scores = scores.masked_fill(prepared["bare"], 0.0)
    elif bug == "bare rows":
        scores = scores.masked_fill(prepared["bare"], -math.inf)
    if (sinks := prepared["sinks"]) is not None:
        column = sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)
        if bug == "sinks twice":
            column = torch.cat([column, column], -1)
        if bug != "sinks lost":
            scores = torch.cat([scores, column], -1)
    mixed = scores.softmax(-1)[..., : k.shape[1]] @ values
    if empty == "zero" and bug != "bare rows":
        mixed = mixed.masked_fill(prepared["bare"], 0.0)
    return mixed.float()


def _right(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    past: int | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
    empty: str | None = None,
    bug: str = "",
) -> Tensor:
    given = {"causal": causal, "past": past, "mask": mask, "bias": bias, "sinks": sinks}
    return _attention(q=q, k=k, v=v, **given, slopes=slopes, empty=empty, bug=bug)


def _wrong(bug: str) -> Any:
    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        causal: bool = False,
        past: int | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
        slopes: Tensor | None = None,
        empty: str | None = None,
    ) -> Tensor:
        return _right(q, k, v, causal, past, mask, bias, sinks, slopes, empty, bug)

    return attention


def _varlen(*, bounded: bool) -> Any:
    def kernel(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float | None,
        causal: bool,
    ) -> Tensor:
        out = torch.zeros(*q.shape[:-1], v.shape[-1])
        for own, keys in sequences(cu_seqlens_q, cu_seqlens_k):
            seen = keys if bounded else slice(0, keys.stop)
            part = _attention(
                q=q[own].transpose(0, 1),
                k=k[seen].transpose(0, 1),
                v=v[seen].transpose(0, 1),
                scale=softmax_scale,
                causal=causal,
            )
            out[own] = part.transpose(0, 1)
        return out

    return kernel


def _from_pages(*, spare: int) -> Any:
    def kernel(
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        cache_seqlens: Tensor,
        block_table: Tensor,
        softmax_scale: float | None,
        causal: bool,
    ) -> Tensor:
        room = block_table.shape[1] * k_cache.shape[1]
        length = min(int(cache_seqlens[0]) + spare, room)
        k, v = (gathered(x, block_table[0], length) for x in (k_cache, v_cache))
        past = int(cache_seqlens[0]) - q.shape[1]
        one = q[0].transpose(0, 1)
        options = {"scale": softmax_scale, "causal": causal, "past": past}
        return _attention(q=one, k=k, v=v, **options).transpose(0, 1)[None]

    return kernel


def _inputs(**options: Any) -> dict[str, Any]:
    q, k, v = normal(4, 5, 16), normal(2, 9, 16, seed=1), normal(2, 9, 16, seed=2)
    return {"q": q, "k": k, "v": v, "causal": True, **options}


BUGS = (
    PublicBug(
        ("tenstorrent/tt-metal#56406",),
        "an additive bias multiplied by the scale",
        ATTENTION, _wrong("bias scaled"), _right, lambda: _inputs(bias=normal(5, 9, seed=3)),
    ),
    PublicBug(
        ("ROCm/rocm-libraries#12229",),
        "a sink counted in two splits of the keys",
        ATTENTION, _wrong("sinks twice"), _right, lambda: _inputs(sinks=normal(4, seed=3)),
    ),
    PublicBug(
        ("vllm-project/vllm-metal#550", "fla-org/flash-linear-attention#831"),
        "sinks that never reach the sum",
        ATTENTION, _wrong("sinks lost"), _right, lambda: _inputs(sinks=normal(4, seed=3)),
    ),
    PublicBug(
        ("meta-pytorch/attention-gym#86",),
        "ALiBi with its sign reversed",
        ATTENTION, _wrong("slopes reversed"), _right,
        lambda: _inputs(slopes=torch.tensor([0.5, 0.25, 0.125, 0.0625])),
    ),
    PublicBug(
        ("keras-team/keras-hub#2861",),
        "ALiBi over the queries' length: nothing where keys are cached",
        ATTENTION, _wrong("slopes lost"), _right,
        lambda: _inputs(slopes=torch.tensor([0.5, 0.25, 0.125, 0.0625])),
    ),
    PublicBug(
        ("pytorch/pytorch#103963", "openvinotoolkit/openvino#36016", "robertknight/rten#1321"),
        "a row that sees no key is NaN where zero is promised",
        ATTENTION, _wrong("bare rows"), _right,
        lambda: _inputs(mask=torch.arange(5)[:, None] > 0, empty="zero"),
    ),
    PublicBug(
        ("Tencent-Hunyuan/HunyuanVideo#310",),
        "packed sequences that see the ones before them",
        ATTENTION, packed(_varlen(bounded=False)), packed(_varlen(bounded=True)),
        lambda: _inputs(causal=False),
    ),
    PublicBug(
        ("pegainfer-project/pegainfer#291",),
        "a page's unused places attended to",
        ATTENTION, paged(_from_pages(spare=4)), paged(_from_pages(spare=0)),
        lambda: _inputs(causal=False),
    ),
)  # fmt: skip
