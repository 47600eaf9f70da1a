"""Attention as nodes of torch's graph, whole and in parts.

Backward takes a sequence's queries in blocks of 256 positions, so memory grows with the length, not
with its square; blocks begin at absolute positions, so no bit depends on the batch.

Tensor names: T ragged rows, Q query rows of a block, K key positions, H heads, G key/value heads,
R heads of a group, h d_head, p pairs (head of a group, query), N pages, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from ..batch import RaggedBatch, visible_keys
from ..cache.page_pool import PAGE
from ..ops.kernel_set import KernelPair
from .first_order import first_order

Tensor = torch.Tensor

BLOCK = 256
"""Query positions of a block: a leaf of `linear` (docs/numerics.md, Gradients)."""


@dataclass(frozen=True)
class Settings:
    """The arguments of attention besides its tensors. The batch continues no cached prefix."""

    batch: RaggedBatch
    scale: float
    cap: float | None
    window: int | None
    kernels: KernelPair


@dataclass(frozen=True, eq=False)
class Pages:
    """Rows [T, G, h] as the attention kernels read them.

    Attributes:
        as_keys: [N, G, h, 64].
        as_values: [N, G, 64, h].
        table: int32 [B, pages of the longest sequence].
    """

    as_keys: Tensor
    as_values: Tensor
    table: Tensor

    @classmethod
    def of(cls, x_TGh: Tensor, settings: Settings) -> Pages:
        x_TGh, batch = x_TGh.contiguous(), settings.batch
        _, n_kv_heads, d_head = x_TGh.shape
        counts = [-(-length // PAGE) for length in batch.lengths]
        table = torch.zeros(batch.size, max(counts), dtype=torch.int32, device="cpu")
        first = 0
        for row, count in zip(table, counts, strict=True):
            row[:count] = torch.arange(first, first + count, dtype=torch.int32, device="cpu")
            first += count
        as_keys = x_TGh.new_empty(first, n_kv_heads, d_head, PAGE)
        as_values = x_TGh.new_empty(first, n_kv_heads, PAGE, d_head)
        settings.kernels.forward.kv_write(
            x_TGh, x_TGh, as_keys, as_values, table, batch.starts_B1, batch.past_B
        )
        return cls(as_keys, as_values, table)


@dataclass(frozen=True, eq=False)
class QueryBlock:
    """Queries at positions first .. last - 1 of sequence b, and keys 0 .. last - 1."""

    settings: Settings
    b: int
    first: int
    last: int

    @property
    def rows(self) -> slice:
        """Ragged rows of the queries."""
        start = self.settings.batch.starts[self.b]
        return slice(start + self.first, start + self.last)

    @property
    def keys(self) -> slice:
        """Ragged rows of the keys."""
        start = self.settings.batch.starts[self.b]
        return slice(start, start + self.last)

    def products(
        self, x_QHh: Tensor, pages: Pages, scale: float = 1.0, cap: float | None = None
    ) -> Tensor:
        """scale * x . y, capped, for every visible key's y, -inf elsewhere [Q, H, K]."""
        rows = torch.arange(self.last - self.first, device="cpu")
        where = self._where(pages)
        return self.settings.kernels.forward.attention_scores(
            x_QHh, pages.as_keys, *where, scale, self._window, rows, self.last, cap or 0.0
        )

    def scores(self, q_QHh: Tensor, k_pages: Pages) -> Tensor:
        """Returns the scores as the forward pass computes them."""
        return self.products(q_QHh, k_pages, self.settings.scale, self.settings.cap)

    def sums_over_keys(self, weight_QHK: Tensor, pages: Pages) -> Tensor:
        """Sum over visible keys of weight * y -> [Q, H, h], rounded to y's dtype."""
        return self.settings.kernels.forward.attention_values(
            weight_QHK, pages.as_values, *self._where(pages), self._window
        )

    def visible_only(self, x_QHK: Tensor) -> Tensor:
        """x, and 0 at masked keys."""
        positions_Q = torch.arange(self.first, self.last, device="cpu")
        visible_QHK = visible_keys(positions_Q, self.last, self.settings.window)
        return x_QHK.masked_fill(~visible_QHK.to(x_QHK.device), 0.0)

    @property
    def _window(self) -> int:
        return self.settings.window or 0

    def _where(self, pages: Pages) -> tuple[Tensor, Tensor, Tensor]:
        starts = torch.tensor([0, self.last - self.first], device="cpu")
        first = torch.tensor([self.first], device="cpu")
        return pages.table[self.b : self.b + 1], starts, first


def query_blocks(settings: Settings) -> Iterator[QueryBlock]:
    """Every query of the batch, ascending."""
    for b, length in enumerate(settings.batch.lengths):
        for first in range(0, length, BLOCK):
            yield QueryBlock(settings, b, first, min(first + BLOCK, length))


class KeySums:
    """Gradients of keys or values [T, G, h]: of each the sum over the queries that saw it.

    Within a block `linear`'s sum over pairs, heads of the group ascending, then queries; blocks
    ascending; rounded once.
    """

    def __init__(self, like_TGh: Tensor, kernels: KernelPair) -> None:
        self._dtype, self._kernels = like_TGh.dtype, kernels
        self._total_TGh = torch.zeros_like(like_TGh, dtype=torch.float32)

    def add(self, block: QueryBlock, weight_QHK: Tensor, x_QHh: Tensor) -> None:
        """Adds weight * x of the block's queries; weight is 0 at masked keys."""
        n_kv_heads = self._total_TGh.shape[1]
        part_KGh = self._kernels.backward.key_sums(weight_QHK, x_QHh, n_kv_heads)
        total_KGh = self._total_TGh[block.keys]
        seen = slice(block.first)
        total_KGh[seen] = self._kernels.forward.add(total_KGh[seen], part_KGh[seen])
        total_KGh[block.first :] = part_KGh[block.first :]

    def rounded(self) -> Tensor:
        return self._kernels.forward.cast(self._total_TGh, self._dtype)


class Attention(Function):
    """Scores, softmax and values in one, bit for bit; the pattern is computed again."""

    @staticmethod
    def forward(
        ctx: Any, q_THh: Tensor, k_TGh: Tensor, v_TGh: Tensor, z_THh: Tensor, settings: Settings
    ) -> Tensor:
        """`z_THh` is the result, by the kernel of the pass without gradients."""
        ctx.save_for_backward(q_THh, k_TGh, v_TGh)
        ctx.settings = settings
        return z_THh.view_as(z_THh)

    @staticmethod
    @first_order
    def backward(ctx: Any, dz_THh: Tensor) -> tuple[Tensor | None, ...]:
        q_THh, k_TGh, v_TGh = ctx.saved_tensors
        settings: Settings = ctx.settings
        kernels = settings.kernels
        k_pages, v_pages = (Pages.of(x, settings) for x in (k_TGh, v_TGh))
        dk, dv = (KeySums(x, kernels) for x in (k_TGh, v_TGh))
        dq_THh = torch.empty_like(q_THh)
        for block in query_blocks(settings):
            q_QHh, dz_QHh = q_THh[block.rows], dz_THh[block.rows]
            scores = block.scores(q_QHh, k_pages)
            pattern = kernels.forward.softmax(scores)
            dpattern = block.visible_only(block.products(dz_QHh, v_pages))
            dscores = kernels.backward.softmax_backward(pattern, dpattern)
            dq_THh[block.rows] = _add_scores(block, dscores, scores, q_QHh, k_pages, dk)
            dv.add(block, pattern, dz_QHh)
        return dq_THh, dk.rounded(), dv.rounded(), None, None


def _add_scores(
    block: QueryBlock,
    dscores_QHK: Tensor,
    scores_QHK: Tensor,
    q_QHh: Tensor,
    k_pages: Pages,
    dk: KeySums,
) -> Tensor:
    """dq of a block from its gradient of scores; adds to dk."""
    dscores_QHK, cap = block.visible_only(dscores_QHK), block.settings.cap
    kernels = block.settings.kernels
    if cap is not None:
        capped = block.visible_only(scores_QHK)
        dscores_QHK = kernels.backward.soft_cap_backward(dscores_QHK, capped, cap)
    dproducts = kernels.forward.scaled(dscores_QHK, block.settings.scale, torch.float32)
    dk.add(block, dproducts, q_QHh)
    return block.sums_over_keys(dproducts, k_pages)


class Scores(Function):
    @staticmethod
    def forward(
        ctx: Any, q_THh: Tensor, k_TGh: Tensor, scores_THK: Tensor, settings: Settings
    ) -> Tensor:
        """`scores_THK` is the result."""
        ctx.save_for_backward(q_THh, k_TGh)
        ctx.settings = settings
        return scores_THK.view_as(scores_THK)

    @staticmethod
    @first_order
    def backward(ctx: Any, dscores_THK: Tensor) -> tuple[Tensor | None, ...]:
        q_THh, k_TGh = ctx.saved_tensors
        k_pages = Pages.of(k_TGh, ctx.settings)
        dq_THh, dk = torch.empty_like(q_THh), KeySums(k_TGh, ctx.settings.kernels)
        for block in query_blocks(ctx.settings):
            dscores_QHK, q_QHh = dscores_THK[block.rows, :, : block.last], q_THh[block.rows]
            scores = dscores_QHK if ctx.settings.cap is None else block.scores(q_QHh, k_pages)
            dq_THh[block.rows] = _add_scores(block, dscores_QHK, scores, q_QHh, k_pages, dk)
        return dq_THh, dk.rounded(), None, None


class Softmax(Function):
    @staticmethod
    def forward(ctx: Any, scores_THK: Tensor, kernels: KernelPair) -> Tensor:
        pattern_THK = kernels.forward.softmax(scores_THK)
        ctx.save_for_backward(pattern_THK)
        ctx.kernels = kernels.backward
        return pattern_THK

    @staticmethod
    @first_order
    def backward(ctx: Any, dpattern_THK: Tensor) -> tuple[Tensor, None]:
        (pattern_THK,) = ctx.saved_tensors
        return ctx.kernels.softmax_backward(pattern_THK, dpattern_THK), None


class Values(Function):
    @staticmethod
    def forward(
        ctx: Any, pattern_THK: Tensor, v_TGh: Tensor, z_THh: Tensor, settings: Settings
    ) -> Tensor:
        """`z_THh` is the result."""
        ctx.save_for_backward(pattern_THK, v_TGh)
        ctx.settings = settings
        return z_THh.view_as(z_THh)

    @staticmethod
    @first_order
    def backward(ctx: Any, dz_THh: Tensor) -> tuple[Tensor | None, ...]:
        pattern_THK, v_TGh = ctx.saved_tensors
        v_pages = Pages.of(v_TGh, ctx.settings)
        dpattern_THK, dv = torch.zeros_like(pattern_THK), KeySums(v_TGh, ctx.settings.kernels)
        for block in query_blocks(ctx.settings):
            dz_QHh = dz_THh[block.rows]
            seen = block.visible_only(block.products(dz_QHh, v_pages))
            dpattern_THK[block.rows, :, : block.last] = seen
            dv.add(block, pattern_THK[block.rows, :, : block.last], dz_QHh)
        return dpattern_THK, dv.rounded(), None, None
