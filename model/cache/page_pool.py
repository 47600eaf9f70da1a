"""The memory of keys and values: pages of 64 positions, counted by reference.

Tensor names: L layers, N pages, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

import torch

from ... import _core
from ..config import ModelConfig

PAGE = 64
"""Key positions a page holds."""

LEAST_PAGES = 16
"""Room a growing pool begins with: a conversation of 1024 tokens does not move it."""


class PoolFull(MemoryError):
    """A pool of fixed size has no page left, and nobody gives one back."""


class PagePool:
    """Pages that sequences hold, alone or together.

    A pool with a capacity is reserved at once: its pages never move, and one more than there are
    raises PoolFull. Reserving costs addresses, not memory, until a page is written to. Without a
    capacity a pool grows, and moves what it holds.

    Attributes:
        k: [L, N, G, h, 64]: keys stand in the last axis, where a kernel's lanes are.
        v: [L, N, G, 64, h].
        n_pages: Pages that were ever in use: all others have never been written to.
        lock: Held while pages change hands.
        reclaim: Called with the number of pages that are missing before `take` raises; may release
            some.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        capacity: int | None = None,
        one_layer: bool = False,
    ) -> None:
        """`one_layer`: all layers share pages (L = 1), for a pass that keeps none."""
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity = {capacity}: expected at least one page")
        shape = (1 if one_layer else config.n_layers, capacity or 0, config.n_key_value_heads)
        d_head = config.d_head
        self.k = torch.empty(*shape, d_head, PAGE, dtype=dtype, device=device)
        self.v = torch.empty(*shape, PAGE, d_head, dtype=dtype, device=device)
        self._layers_of_a_page = config.n_layers if one_layer else 1
        self.capacity = capacity
        self.n_pages = 0
        self.reclaim: Callable[[int], None] | None = None
        self._references: list[int] = []
        self._free: list[int] = []
        self._arrays: _core.Arrays | None = None
        self.lock = RLock()

    @property
    def dtype(self) -> torch.dtype:
        return self.k.dtype

    @property
    def n_free(self) -> int:
        """Pages that were in use and are not now."""
        return len(self._free)

    @property
    def n_used(self) -> int:
        """Pages that somebody holds."""
        return self.n_pages - len(self._free)

    @property
    def n_references(self) -> int:
        """Holders of all pages together: 0 once everybody has released theirs."""
        return sum(self._references)

    def references(self, page: int) -> int:
        """Returns how many hold this page."""
        return self._references[page]

    def can_take(self, n: int) -> bool:
        """Whether there are n pages to take, once others have given up theirs where they must."""
        with self.lock:
            if (missing := n - self._room()) > 0 and self.reclaim is not None:
                self.reclaim(missing)
            return n <= self._room()

    def take(self, n: int) -> list[int]:
        """Returns n pages that nobody else holds; used ones first, whose memory is there.

        Raises PoolFull, with nothing taken, if there are not so many.
        """
        with self.lock:
            if not self.can_take(n):
                raise PoolFull(
                    f"the cache has {self.capacity} pages of {PAGE} tokens, and "
                    f"{n - self._room()} too few are free: give it more bytes, or run fewer or "
                    "shorter sequences at a time"
                )
            reused = [self._free.pop() for _ in range(min(n, len(self._free)))]
            new = range(self.n_pages, self.n_pages + n - len(reused))
            self._grow(new.stop)
            self._references += [0] * len(new)
            self.n_pages = new.stop
            taken = [*reused, *new]
            for page in taken:
                self._references[page] = 1
            return taken

    def retain(self, pages: Sequence[int]) -> None:
        """Counts one more holder of each page."""
        with self.lock:
            for page in pages:
                assert self._references[page] > 0, "a page that nobody holds may be anybody's"
                self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Counts one holder less of each page; one that nobody holds is used again."""
        with self.lock:
            for page in pages:
                assert self._references[page] > 0, "released once too often"
                self._references[page] -= 1
                if self._references[page] == 0:
                    self._free.append(page)

    def copy(self, source: int, target: int) -> None:
        """Copies a page in every layer."""
        self.k[:, target] = self.k[:, source]
        self.v[:, target] = self.v[:, source]

    def arrays(self) -> _core.Arrays:
        """Returns the keys and values of every layer, as the core reads them."""
        if self._arrays is None:
            layers = [x for pair in zip(self.k, self.v, strict=True) for x in pair]
            self._arrays = _core.Arrays(layers * self._layers_of_a_page)
        return self._arrays

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out addresses and the lock: a copy has its own."""
        return vars(self) | {"_arrays": None, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"lock": RLock()})

    def _room(self) -> int:
        """Pages that can be had, without bound where the pool grows."""
        unused = (1 << 62) if self.capacity is None else self.capacity - self.n_pages
        return len(self._free) + unused

    def _grow(self, n: int) -> None:
        """Makes room for n pages, and for twice as many as before where they must move."""
        held = self.k.shape[1]
        if n <= held:
            return
        room = max(n, 2 * held, LEAST_PAGES)
        self.k, self.v = _grown(self.k, room), _grown(self.v, room)
        self._arrays = None


def pages_of(n_tokens: int) -> int:
    """Returns the pages that so many tokens take."""
    return -(-n_tokens // PAGE)


def page_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Returns the bytes of one page, keys and values of all layers."""
    return 2 * config.n_layers * config.n_key_value_heads * PAGE * config.d_head * dtype.itemsize


def _grown(pages: torch.Tensor, n: int) -> torch.Tensor:
    grown = pages.new_empty(pages.shape[0], n, *pages.shape[2:])
    grown[:, : pages.shape[1]] = pages
    return grown
