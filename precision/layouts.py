"""Attention's tensors as kernels lay them out: sequences end to end, keys and values in pages.

`packed` and `paged` make of such a kernel an implementation of the operation `attention` on one
sequence, which `check`, searches and the pytest plugin hold to a contract. What the kernel must not
touch, neighbours in a pack and unused places of pages, is filled with numbers that would show.

T query positions, K keys, H heads, G key/value heads, d and h widths.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

__all__ = ["gathered", "packed", "paged", "sequences"]

Tensor = torch.Tensor
Kernel = Callable[..., Tensor]

_NEIGHBOURS = ((2, 3), (1, 5))
"""Queries and keys of the sequences before and behind the one that is judged."""


def packed(kernel: Kernel) -> Kernel:
    """Returns an implementation of a kernel of packed sequences (`cu_seqlens`).

    The kernel is called as flash_attn_varlen_func is, by keywords: q [total T, H, d], k and v
    [total K, G, d], cu_seqlens_q and cu_seqlens_k (int32, from 0), max_seqlen_q, max_seqlen_k,
    softmax_scale and causal; it gives [total T, H, h]. The sequence stands between two others.
    """

    def attention(
        q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False
    ) -> Tensor:
        queries = [_neighbour(q, n) for n, _ in _NEIGHBOURS]
        keys, values = ([_neighbour(x, n) for _, n in _NEIGHBOURS] for x in (k, v))
        packs = [torch.cat([a, x, b], -2) for x, (a, b) in ((q, queries), (k, keys), (v, values))]
        lengths_q = _lengths(q.shape[-2], 0)
        lengths_k = _lengths(k.shape[-2], 1)
        out = kernel(
            q=packs[0].transpose(0, 1).contiguous(),
            k=packs[1].transpose(0, 1).contiguous(),
            v=packs[2].transpose(0, 1).contiguous(),
            cu_seqlens_q=_ends(lengths_q),
            cu_seqlens_k=_ends(lengths_k),
            max_seqlen_q=max(lengths_q),
            max_seqlen_k=max(lengths_k),
            softmax_scale=scale,
            causal=causal,
        )
        start = lengths_q[0]
        return out[start : start + q.shape[-2]].transpose(0, 1)

    return attention


def paged(kernel: Kernel, page_size: int = 16) -> Kernel:
    """Returns an implementation of a kernel of keys and values in pages.

    The kernel is called as flash_attn_with_kvcache is, by keywords: q [1, T, H, d], k_cache and
    v_cache [pages, page_size, G, d], cache_seqlens [1] and block_table [1, pages of the sequence]
    (int32), softmax_scale and causal; it gives [1, T, H, h]. Pages stand in another order, beside
    one of another sequence, and the rest of the last one is not empty.
    """

    def attention(
        q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False
    ) -> Tensor:
        n_keys = k.shape[-2]
        count = -(-n_keys // page_size)
        places = torch.arange(count).flip(0) + 1  # page 0 is another sequence's
        out = kernel(
            q=q.transpose(0, 1)[None].contiguous(),
            k_cache=_in_pages(k, places, page_size),
            v_cache=_in_pages(v, places, page_size),
            cache_seqlens=torch.tensor([n_keys], dtype=torch.int32),
            block_table=places[None].to(torch.int32),
            softmax_scale=scale,
            causal=causal,
        )
        return out[0].transpose(0, 1)

    return attention


def _neighbour(x: Tensor, n: int) -> Tensor:
    """n rows that would show in any average."""
    generator = torch.Generator().manual_seed(n)
    numbers = torch.randn(*x.shape[:-2], n, x.shape[-1], generator=generator)
    return (4 * numbers).to(x.dtype)


def _lengths(own: int, which: int) -> list[int]:
    first, last = (pair[which] for pair in _NEIGHBOURS)
    return [first, own, last]


def _ends(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def _in_pages(x: Tensor, places: Tensor, page_size: int) -> Tensor:
    """x [G, K, d] as [pages, page_size, G, d]."""
    pages = _neighbour(x, (len(places) + 1) * page_size)
    pages = pages.reshape(x.shape[0], -1, page_size, x.shape[-1])
    for i, place in enumerate(places.tolist()):
        part = x[:, i * page_size : (i + 1) * page_size]
        pages[:, place, : part.shape[1]] = part
    return pages.permute(1, 2, 0, 3).contiguous()


def sequences(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> list[tuple[slice, slice]]:
    """Returns where each packed sequence has its queries and its keys."""
    parts = (pairwise(ends.tolist()) for ends in (cu_seqlens_q, cu_seqlens_k))
    return [(slice(*a), slice(*b)) for a, b in zip(*parts, strict=True)]


def gathered(cache: Tensor, block_table: Tensor, length: int) -> Tensor:
    """Returns the keys or values [G, length, d] that one row of a block table points to."""
    pages = cache[block_table.long()]  # [pages of the sequence, page size, G, d]
    return pages.flatten(0, 1)[:length].transpose(0, 1)
