"""Keys and values of the tokens seen so far, as passes read and write them.

Tensor names: B batch, G key/value heads, h d_head, N pages, T ragged rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ... import _core
from ..batch import RaggedBatch
from ..config import ModelConfig
from .page_pool import PAGE, PagePool, pages_of


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
        pages = self.page_table[b, : pages_of(n)].long().to(self.k_pages.device)
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


@dataclass(eq=False)
class CachedSequence:
    """One sequence's part of a cache.

    Attributes:
        pages: Pages of its positions, 64 by 64. Those before its length may be others', too.
        length: Cached tokens.
        key_offset: Left padding it began with, the columns that precede its key 0 in the scores and
            patterns hooks see.
    """

    pages: list[int] = field(default_factory=list)
    length: int = 0
    key_offset: int = 0


class KVCache:
    """The cache of a batch of sequences. `model(tokens, kv_cache=cache)` appends to it.

    A pass reserves pages first, writes layer by layer, and only then advances the lengths: one that
    raises half way leaves the sequences as they were. A partly filled page that others hold, too,
    is copied before it is written to.

    Attributes:
        pool: Where the pages are: the cache's own, or one that several caches share.
        sequences: What the rows hold.
        edits: What `edit_key` says of each pass that wrote: "" for one that nobody edited.
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
        pool = PagePool(config, dtype, device, one_layer=one_layer)
        self._hold(config, pool, [CachedSequence() for _ in range(batch_size)])

    @classmethod
    def over(
        cls, config: ModelConfig, pool: PagePool, sequences: Sequence[CachedSequence]
    ) -> KVCache:
        """Returns a cache of these sequences, whose pages are in this pool.

        They stay the caller's: passes append to them, and nobody but the caller, or `keep`,
        releases their pages.
        """
        cache = cls.__new__(cls)
        cache._hold(config, pool, list(sequences))
        return cache

    def _hold(self, config: ModelConfig, pool: PagePool, sequences: list[CachedSequence]) -> None:
        self.config, self.pool, self.sequences = config, pool, sequences
        self.edits: set[str | None] = set()
        self._layers: list[LayerCache] = []
        self._show_pages()

    @property
    def batch_size(self) -> int:
        return len(self.sequences)

    @property
    def dtype(self) -> torch.dtype:
        return self.pool.dtype

    @property
    def lengths(self) -> list[int]:
        """Cached tokens of each sequence."""
        return [sequence.length for sequence in self.sequences]

    @property
    def key_offsets(self) -> list[int]:
        """Left padding each sequence began with (`CachedSequence`)."""
        return [sequence.key_offset for sequence in self.sequences]

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
        return self._layers[index % len(self._layers)]

    def pages(self) -> _core.Arrays:
        """The key and value pages of every layer, as the core reads them."""
        return self.pool.arrays()

    def reserve(self, batch: RaggedBatch) -> None:
        """Makes room for the batch's tokens.

        Raises ValueError if it does not go on from here, and PoolFull if a shared pool has no room.
        """
        if batch.past != self.lengths:
            raise ValueError(
                f"kv_cache: holds {self.lengths} tokens, the batch continues {batch.past}"
            )
        missing = [
            max(0, pages_of(total) - len(sequence.pages))
            for sequence, total in zip(self.sequences, batch.totals, strict=True)
        ]
        shared = [sequence for sequence in self.sequences if self._is_shared(sequence)]
        if not any(missing) and not shared:
            return
        taken = self.pool.take(sum(missing) + len(shared))
        for sequence, n in zip(self.sequences, missing, strict=True):
            sequence.pages += (taken.pop() for _ in range(n))
        for sequence in shared:
            self._own(sequence, taken.pop())
        self._show_pages()

    def _is_shared(self, sequence: CachedSequence) -> bool:
        """Whether the page that the next token goes to is partly filled, and others', too."""
        whole, rest = divmod(sequence.length, PAGE)
        return rest > 0 and self.pool.references(sequence.pages[whole]) > 1

    def _own(self, sequence: CachedSequence, page: int) -> None:
        last = sequence.length // PAGE
        self.pool.copy(sequence.pages[last], page)
        self.pool.release([sequence.pages[last]])
        sequence.pages[last] = page

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the views of the pool's tensors: a copy has tensors of its own."""
        return vars(self) | {"_layers": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._show_pages()

    def _show_pages(self) -> None:
        """Writes the page table, and takes the layers' pages from the pool, which may have moved
        them."""
        width = max(len(sequence.pages) for sequence in self.sequences)
        rows = [[*s.pages, *[0] * (width - len(s.pages))] for s in self.sequences]
        table = torch.tensor(rows, dtype=torch.int32, device="cpu").view(self.batch_size, width)
        k, v = self.pool.k, self.pool.v
        if not self._layers or self._layers[0].k_pages.data_ptr() != k.data_ptr():
            self._layers = [LayerCache(k_l, v_l, table) for k_l, v_l in zip(k, v, strict=True)]
        for layer in self._layers:
            layer.page_table = table

    def advance(self, batch: RaggedBatch) -> None:
        """Counts the batch's tokens as cached, once every layer has written them."""
        begins = not any(self.lengths)
        for b, sequence in enumerate(self.sequences):
            if begins:
                sequence.key_offset = batch.key_offsets[b]
            sequence.length = batch.totals[b]

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps these sequences, in this order; the pages of the others are used again.

        One that is named several times becomes as many, which share the pages that it has.
        Raises ValueError for no row, or one that is none.
        """
        if not rows or not set(rows) <= set(range(self.batch_size)):
            raise ValueError(f"keep: {list(rows)}: expected rows of {self.batch_size}")
        kept = [self.sequences[b] for b in rows]
        for sequence in kept:
            self.pool.retain(sequence.pages)
        for sequence in self.sequences:
            self.pool.release(sequence.pages)
        self.sequences = [replace(sequence, pages=list(sequence.pages)) for sequence in kept]
        self._show_pages()
