"""Sums and dot products in a given order, every partial sum rounded to the accumulator.

Sums of a shape are formed side by side: the loops run over steps of one sum only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch

from ..formats import FP32, FP64, Format, round_to
from .interval import two_sum

Tensor = torch.Tensor
Round = Callable[[Tensor], Tensor]

# Columns of b are taken so many at a time that all products of a tree fit in this many numbers.
PRODUCTS_AT_ONCE = 1 << 23


def sum_in_order(v: Tensor, order: str, fmt: Format, *, flush: bool) -> Tensor:
    """Over the last axis, kept with size 1; v fp64, the result fp64."""
    dtype, into = _arithmetic(fmt, flush)
    terms = into(v.to(dtype))
    kind, _, size = order.partition(":")
    if kind in ("any", "pairwise"):
        total = _tree(terms, into)
    elif kind == "sequential":
        total = _chain(terms, into)
    elif kind == "reversed":
        total = _chain(terms.flip(-1), into)
    elif kind == "pairs":
        block, leaf = map(int, size.split(":"))
        total = _chain(_pairs(_blocks(terms, leaf), block, into), into)
    else:
        total = _chain(_chain(_blocks(terms, int(size)), into).squeeze(-1), into)
    return total.to(torch.float64)


def dot_in_order(
    a: Tensor, b: Tensor, order: str, compute: Format, fmt: Format, *, fused: bool, flush: bool
) -> Tensor:
    """a [.., m, k] @ b [.., k, n], products rounded to `compute` unless fused with the addition."""
    kind, _, size = order.partition(":")
    if kind == "pairwise":
        return _dot_tree(a, b, compute, fmt, flush)
    k = a.shape[-1]
    if kind == "reversed":
        a, b = a.flip(-1), b.flip(-2)
    dtype, into = _arithmetic(fmt, flush)
    step = _fused_step(dtype, into) if fused else _step(compute, dtype, into, flush)
    if not fused and dtype is torch.float32 and compute is FP32:
        a, b = a.to(dtype), b.to(dtype)

    def chain(terms: range) -> Tensor:
        total: Tensor | None = None
        for j in terms:
            total = step(total, a[..., :, j : j + 1], b[..., j : j + 1, :])
        assert total is not None
        return total

    def ascending(parts: Iterable[Tensor]) -> Tensor:
        return functools.reduce(lambda total, part: into(total + part), parts)

    if kind == "pairs":
        block, leaf = map(int, size.split(":"))
        leaves = [range(start, min(start + leaf, k)) for start in range(0, k, leaf)]
        total = ascending(
            ascending(_two_chains(blocked, chain, into) for blocked in _cut(terms, block))
            for terms in leaves
        )
    else:
        block = int(size) if kind == "blocked" else k
        total = ascending(chain(terms) for terms in _cut(range(k), block))
    return total.to(torch.float64)


def _cut(terms: range, size: int) -> list[range]:
    return [terms[start : start + size] for start in range(0, len(terms), size)]


def _two_chains(terms: range, chain: Callable[[range], Tensor], into: Round) -> Tensor:
    """Even + odd terms; a chain of none is left out, for a sum with 0 rounds nothing."""
    even, odd = terms[::2], terms[1::2]
    return into(chain(even) + chain(odd)) if odd else chain(even)


def _arithmetic(fmt: Format, flush: bool) -> tuple[torch.dtype, Round]:
    """The dtype to add in and what rounds a sum of that dtype to the format."""
    if fmt is FP32 and not flush:
        return torch.float32, _identity
    if fmt is FP64:
        return torch.float64, _identity
    return torch.float64, lambda x: round_to(x, fmt, flush_subnormals=flush)


def _identity(x: Tensor) -> Tensor:
    return x


def _step(
    compute: Format, dtype: torch.dtype, into: Round, flush: bool
) -> Callable[[Tensor | None, Tensor, Tensor], Tensor]:
    product = _product(compute, dtype, flush)

    def step(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        term = product(x, y)
        return into(term) if total is None else into(total + term)

    return step


def _product(
    compute: Format, dtype: torch.dtype, flush: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    _, into = _arithmetic(compute, flush)
    if compute is FP32 and not flush:
        if dtype is torch.float32:
            return lambda x, y: x * y
        return lambda x, y: (x * y).to(torch.float32).to(dtype)
    return lambda x, y: into(x * y).to(dtype)


def _fused_step(
    dtype: torch.dtype, into: Round
) -> Callable[[Tensor | None, Tensor, Tensor], Tensor]:
    """fma(x, y, total): the product of at most 24-bit numbers is exact in fp64."""

    def step(total: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        product = x * y
        exact = product if total is None else add_to_odd(total.to(torch.float64), product)
        return into(exact.to(dtype))

    return step


def add_to_odd(a: Tensor, b: Tensor) -> Tensor:
    """a + b in fp64, rounded to odd: rounding that once more to fewer bits rounds a + b once."""
    total, error = two_sum(a, b)
    even = (total.view(torch.int64) & 1) == 0
    towards = torch.where(error > 0, torch.inf, -torch.inf)
    return torch.where(
        (error != 0) & even & error.isfinite(), torch.nextafter(total, towards), total
    )


def _chain(terms: Tensor, into: Round) -> Tensor:
    """Ascending along the last axis."""
    total = terms[..., :1]
    for j in range(1, terms.shape[-1]):
        total = into(total + terms[..., j : j + 1])
    return total


def _tree(terms: Tensor, into: Round) -> Tensor:
    """Neighbours are added until one number is left; an odd last one waits."""
    while terms.shape[-1] > 1:
        paired = terms[..., : terms.shape[-1] // 2 * 2]
        sums = into(paired[..., ::2] + paired[..., 1::2])
        terms = torch.cat([sums, terms[..., paired.shape[-1] :]], -1)
    return terms


def _pairs(leaves: Tensor, block: int, into: Round) -> Tensor:
    """The sums of leaves [.., leaves, size], [.., leaves]."""
    blocks = _blocks(leaves, block)
    even, odd = _chain(blocks[..., ::2], into), _chain(blocks[..., 1::2], into)
    return _chain(into(even + odd).squeeze(-1), into).squeeze(-1)


def _blocks(terms: Tensor, size: int) -> Tensor:
    """[.., n] as [.., blocks, size], filled up with zeros."""
    padded = torch.nn.functional.pad(terms, (0, -terms.shape[-1] % size))
    return padded.reshape(*padded.shape[:-1], -1, size)


def _dot_tree(a: Tensor, b: Tensor, compute: Format, fmt: Format, flush: bool) -> Tensor:
    dtype, into = _arithmetic(fmt, flush)
    product = _product(compute, dtype, flush)
    if compute is FP32 and dtype is torch.float32:
        a, b = a.to(dtype), b.to(dtype)
    rows = a.unsqueeze(-2)
    columns = max(1, PRODUCTS_AT_ONCE // max(a.numel(), 1))
    parts = [
        _tree(into(product(rows, part.mT.unsqueeze(-3))), into).squeeze(-1)
        for part in torch.split(b, columns, -1)
    ]
    return torch.cat(parts, -1).to(torch.float64)
