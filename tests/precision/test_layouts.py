"""precision/layouts.py: packed and paged kernels under the contract of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.precision import PrecisionContract, check, differential_test
from bitlens.precision.layouts import gathered, packed, paged, sequences
from bitlens.precision.search import Profile
from support.every_operation import CORRECT

Tensor = torch.Tensor
ATTENTION = PrecisionContract("attention", storage="bf16")
SHORT = Profile("short", 24)


def _one(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return CORRECT["attention"]["eager"](q, k, v, scale, causal=causal).to(q.dtype)


def varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None,
    causal: bool,
    leak: int = 0,
) -> Tensor:
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    for own, keys in sequences(cu_seqlens_q, cu_seqlens_k):
        assert own.stop - own.start <= max_seqlen_q
        assert keys.stop - keys.start <= max_seqlen_k
        seen = slice(max(0, keys.start - leak), keys.stop)
        parts = (x.transpose(0, 1) for x in (q[own], k[seen], v[seen]))
        out[own] = _one(*parts, softmax_scale, causal).transpose(0, 1)
    return out


def leaking(**inputs: Any) -> Tensor:
    return varlen(**inputs, leak=1)


def from_pages(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cache_seqlens: Tensor,
    block_table: Tensor,
    softmax_scale: float | None,
    causal: bool,
    in_order: bool = False,
) -> Tensor:
    length = int(cache_seqlens[0])
    pages = block_table[0].sort().values if in_order else block_table[0]
    k, v = (gathered(cache, pages, length) for cache in (k_cache, v_cache))
    return _one(q[0].transpose(0, 1), k, v, softmax_scale, causal).transpose(0, 1)[None]


def ignoring_the_table(**inputs: Any) -> Tensor:
    return from_pages(**inputs, in_order=True)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(packed(varlen), packed(leaking)), (paged(from_pages, 4), paged(ignoring_the_table, 4))],
    ids=["packed", "paged"],
)
def test_layouts_are_the_same_operation(right: Any, wrong: Any) -> None:
    assert differential_test(right, contract=ATTENTION, profile=SHORT).violation is None
    with pytest.raises(AssertionError, match="breaks PrecisionContract"):
        differential_test(wrong, contract=ATTENTION, profile=SHORT)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 8, generator=g).bfloat16() for n in (3, 9, 9))
    inputs = {"q": q, "k": k, "v": v, "causal": True}
    assert check(right(**inputs), inputs, ATTENTION).ok
    assert not check(wrong(**inputs), inputs, ATTENTION).ok


def test_pages_are_those_of_the_table() -> None:
    cache = torch.arange(24.0).reshape(4, 3, 1, 2)
    rows = gathered(cache, torch.tensor([2, 0], dtype=torch.int32), 5)
    assert rows.tolist() == [[[12, 13], [14, 15], [16, 17], [0, 1], [2, 3]]]
    ends = torch.tensor([0, 2, 5]), torch.tensor([0, 4, 4])
    assert sequences(*ends) == [(slice(0, 2), slice(0, 4)), (slice(2, 5), slice(4, 4))]
