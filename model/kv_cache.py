"""Keys and values of the tokens seen so far, in pages of 64 positions.

Tensor names: B batch, G key/value heads, h d_head, N pages, T ragged rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from .. import _core
from .batch import RaggedBatch
from .config import ModelConfig

PAGE = 64
"""Key positions a page holds."""

LEAST_PAGES = 16
"""Room a cache begins with: a conversation of 1024 tokens does not move it."""


@dataclass(eq=False)
class LayerCache:
    """One layer's pages, shared by the sequences of a batch.

    Attributes:
        k_pages: [N, G, h, 64]: keys stand in the last axis, where a kernel's lanes are.
        v_pages: [N, G, 64, h].
        page_table: int32 [B, pages a sequence may have] on the CPU: page of each 64 positions.
        written: Keys and values [T, G, h] that the pass under way has just stored, in its graph if
            it makes one; None once they are attended to.
    """

    k_pages: torch.Tensor
    v_pages: torch.Tensor
    page_table: torch.Tensor
    written: tuple[torch.Tensor, torch.Tensor] | None = None

    def gather(self, b: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first n keys and values of sequence b, [n, G, h] each."""
        pages = self.page_table[b, : -(-n // PAGE)].long().to(self.k_pages.device)
        k = self.k_pages[pages].permute(0, 3, 1, 2).flatten(0, 1)[:n]
        v = self.v_pages[pages].permute(0, 2, 1, 3).flatten(0, 1)[:n]
        return k, v

    @torch.no_grad()
    def write(self, batch: RaggedBatch, k_TGh: torch.Tensor, v_TGh: torch.Tensor) -> None:
        """Stores the batch's keys and values at the positions after `batch.past`."""
        counts = torch.tensor(batch.lengths, device="cpu")
        positions_T = batch.positions_T.cpu()
        row_T = torch.repeat_interleave(torch.arange(batch.size, device="cpu"), counts)
        page_T = self.page_table[row_T, positions_T // PAGE].long().to(self.k_pages.device)
        slot_T = (positions_T % PAGE).to(self.k_pages.device)
        self.k_pages[page_T, :, :, slot_T] = k_TGh.detach()
        self.v_pages[page_T, :, slot_T] = v_TGh.detach()


class KVCache:
    """The cache of a batch of sequences. `model(tokens, kv_cache=cache)` appends to it.

    A pass reserves pages first, writes layer by layer, and only then advances the lengths: one that
    raises half way leaves the sequences as they were.

    Attributes:
        lengths: Cached tokens of each sequence.
        key_offsets: Left padding each sequence began with, the columns that precede its key 0 in
            the scores and patterns hooks see.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        one_layer: bool = False,
    ) -> None:
        """Makes an empty cache. `one_layer`: all layers share pages, for a pass that keeps none."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.config = config
        self.lengths = [0] * batch_size
        self.key_offsets = [0] * batch_size
        self.n_pages = 0
        self._free: list[int] = []
        table = torch.zeros(batch_size, 0, dtype=torch.int32, device="cpu")
        shape = (0, config.n_key_value_heads, config.d_head)
        layers = [
            LayerCache(
                torch.empty(*shape, PAGE, dtype=dtype, device=device),
                torch.empty(*shape[:2], PAGE, shape[2], dtype=dtype, device=device),
                table,
            )
            for _ in range(1 if one_layer else config.n_layers)
        ]
        self._pages: _core.Arrays | None = None
        self._pools = layers
        self._layers = layers * config.n_layers if one_layer else layers

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def dtype(self) -> torch.dtype:
        return self._pools[0].k_pages.dtype

    def check(self, config: ModelConfig, batch_size: int, dtype: torch.dtype) -> None:
        """Raises ValueError unless the cache was made for this model, dtype and batch size."""
        if self.config is not config and self.config != config:
            raise ValueError("kv_cache: made for a model of another config")
        if self.dtype != dtype:
            raise ValueError(f"kv_cache: holds {self.dtype}, this model's activations are {dtype}")
        if self.batch_size != batch_size:
            raise ValueError(f"kv_cache: made for {self.batch_size} sequences, not {batch_size}")

    def layer(self, index: int) -> LayerCache:
        """The pages of one layer."""
        return self._layers[index]

    def pages(self) -> _core.Arrays:
        """The key and value pages of every layer, as the core reads them."""
        if self._pages is None:
            self._pages = _core.Arrays(
                [pages for x in self._layers for pages in (x.k_pages, x.v_pages)]
            )
        return self._pages

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what holds addresses: a copy has tensors of its own."""
        return vars(self) | {"_pages": None}

    def reserve(self, batch: RaggedBatch) -> None:
        """Makes room for the batch's tokens. Raises ValueError if it does not go on from here."""
        if batch.past != self.lengths:
            raise ValueError(
                f"kv_cache: holds {self.lengths} tokens, the batch continues {batch.past}"
            )
        table = self._pools[0].page_table
        needed = [-(-total // PAGE) for total in batch.totals]
        held = [-(-length // PAGE) for length in self.lengths]
        n_new = sum(n - h for n, h in zip(needed, held, strict=True))
        reused = self._free[:n_new]
        n_pages = self.n_pages + n_new - len(reused)
        self._reserved = n_pages, len(reused)
        if n_new == 0:
            return
        width = max(table.shape[1], *needed)
        table = torch.nn.functional.pad(table, (0, width - table.shape[1]))
        pages = iter([*reused, *range(self.n_pages, n_pages)])
        for b, (have, need) in enumerate(zip(held, needed, strict=True)):
            taken = list(islice(pages, need - have))
            table[b, have:need] = torch.tensor(taken, dtype=torch.int32, device="cpu")
        for pool in self._pools:
            pool.page_table = table
            pool.k_pages = _with_capacity(pool.k_pages, n_pages)
            pool.v_pages = _with_capacity(pool.v_pages, n_pages)
        self._pages = None

    def advance(self, batch: RaggedBatch) -> None:
        """Counts the batch's tokens as cached, once every layer has written them."""
        if not any(self.lengths):
            self.key_offsets = list(batch.key_offsets)
        self.lengths = list(batch.totals)
        self.n_pages, n_reused = self._reserved
        del self._free[:n_reused]

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps these sequences, in this order; the pages of the others are used again.

        Raises ValueError for no row, one twice, or one that is none.
        """
        if not rows or len(set(rows)) < len(rows) or not set(rows) <= set(range(self.batch_size)):
            raise ValueError(f"keep: {list(rows)}: expected different rows of {self.batch_size}")
        table = self._pools[0].page_table
        for b in set(range(self.batch_size)) - set(rows):
            self._free += table[b, : -(-self.lengths[b] // PAGE)].tolist()
        table = table[list(rows)].contiguous()
        for pool in self._pools:
            pool.page_table = table
        self.lengths = [self.lengths[b] for b in rows]
        self.key_offsets = [self.key_offsets[b] for b in rows]


def _with_capacity(pages: torch.Tensor, n: int) -> torch.Tensor:
    """The same pages with room for n, and for twice as many as before where they must move.

    Room costs addresses, not memory, until it is written to; moving costs every token after it.
    """
    held = pages.shape[0]
    if n <= held:
        return pages
    grown = pages.new_empty(max(n, 2 * held, LEAST_PAGES), *pages.shape[1:])
    grown[:held] = pages
    return grown
