"""The pages of sequences under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ..config import ModelConfig
from .kv_cache import CachedSequence, KVCache
from .page_pool import PAGE, PagePool, pages_of
from .prefix_index import Node
from .prefix_key import PrefixKey


class CachePolicy(Protocol):
    """The part of a precision policy that a cache needs."""

    @property
    def name(self) -> str: ...

    @property
    def activation(self) -> torch.dtype: ...


class CacheableOps(Protocol):
    """The part of a backend that a cache needs."""

    @property
    def policy(self) -> CachePolicy: ...

    device: torch.device
    differentiable: bool


class PagedModel(Protocol):
    """The part of a model that sequences with pages need."""

    config: ModelConfig

    @property
    def ops(self) -> CacheableOps: ...


@dataclass(eq=False)
class HeldPrompt:
    """A sequence under way, whose pages a cache may share.

    Attributes:
        sequence: Its pages and length.
        n_cached: Tokens that were found.
        key: What its pages are known by; None where they are nobody else's.
        leaf: The last of its pages that the index knows.
        n_known: Pages that the index knows.
    """

    sequence: CachedSequence
    n_cached: int
    key: PrefixKey | None
    leaf: Node | None = None
    n_known: int = 0

    @property
    def has_news(self) -> bool:
        """Whether it has full pages that the index does not know."""
        if self.key is None:
            return False
        return self.n_known < self.sequence.length // PAGE or not is_known(self.leaf)


class SequencePages:
    """Hands out pages to sequences, and keeps nothing of those that have ended.

    Attributes:
        pool: Where the pages are. Without a capacity it grows.
    """

    def __init__(self, model: PagedModel, *, capacity: int | None = None) -> None:
        self.config = model.config
        self.pool = PagePool(
            model.config, model.ops.policy.activation, model.ops.device, capacity=capacity
        )

    def match(self, ids: Sequence[int], *, salt: str = "") -> int:
        """Returns how many tokens at the beginning of a prompt are known: none."""
        return 0

    def hold(
        self, ids: Sequence[int], *, salt: str = "", observed_from: int | None = None
    ) -> HeldPrompt:
        """Returns a sequence without a token, whose pages will be nobody else's. `release` must
        follow."""
        return HeldPrompt(CachedSequence(), 0, None)

    def fork(self, held: HeldPrompt) -> HeldPrompt:
        """Returns another sequence with the tokens and the pages of this one: whoever writes to a
        partly filled one that both hold copies it first. `release` must follow."""
        sequence = replace(held.sequence, pages=list(held.sequence.pages))
        self.pool.retain(sequence.pages)
        return replace(held, sequence=sequence, n_cached=sequence.length)

    def seal(self, held: HeldPrompt, ids: Sequence[int]) -> bool:
        """Makes the full pages of a sequence known, where anything is; returns whether caches over
        it must be made anew."""
        return False

    def keep(self, held: HeldPrompt, ids: Sequence[int]) -> None:
        """Makes all pages of a sequence known, where anything is."""

    @contextmanager
    def before(self, held: HeldPrompt, n: int) -> Iterator[KVCache]:
        """Hands out a cache of a sequence's first n tokens; what passes append to it is dropped."""
        sequence = CachedSequence(held.sequence.pages[: pages_of(n)], n)
        self.pool.retain(sequence.pages)
        try:
            yield self.over([sequence])
        finally:
            self.pool.release(sequence.pages)

    def over(self, sequences: Sequence[CachedSequence]) -> KVCache:
        """Returns a cache of sequences whose pages are from here."""
        return KVCache.over(self.config, self.pool, sequences)

    def release(self, held: HeldPrompt) -> None:
        """Ends a sequence. Pages that nobody knows and nobody holds are free again."""
        with self.pool.lock:
            self.pool.release(held.sequence.pages)
            held.sequence.pages, held.sequence.length, held.leaf = [], 0, None


def is_known(leaf: Node | None) -> bool:
    """Whether the index still knows a page that it knew; None, the beginning, always is."""
    return leaf is None or leaf.attached
