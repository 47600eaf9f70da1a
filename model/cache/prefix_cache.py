"""Prompts that are kept, so that the next one with the same beginning need not compute it again."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Protocol

from ..._core import numerics_version
from .kv_cache import CachedSequence, KVCache
from .page_pool import PAGE, page_bytes, pages_of
from .prefix_index import Digest, Match, Node, PrefixIndex, blocks_of, token_bytes
from .prefix_key import PrefixKey
from .sequence_pages import HeldPrompt, PagedModel, SequencePages, is_known

NODE_BYTES = 1024
"""What the index takes of the bytes for each page; a test measures it."""


class CacheableModel(PagedModel, Protocol):
    """The part of a model that a cache needs."""

    def fingerprint(self) -> str: ...

    def edit_key(self) -> str | None: ...


@dataclass(frozen=True)
class CacheStats:
    """The counts of a cache.

    Attributes:
        hits, misses: Prompts of which a beginning was found, and others.
        hit_tokens: Tokens whose keys and values were there.
        pages_used: Pages in memory, kept or in use.
        pages_referenced: References of sequences under way.
        evictions: Pages given up for others, or expired.
        bytes: Of the pages used and their index entries.
    """

    hits: int
    misses: int
    hit_tokens: int
    pages_used: int
    pages_referenced: int
    evictions: int
    bytes: int


@dataclass(frozen=True)
class Prompt:
    """A prompt as `PrefixCache.prompt` hands it out.

    Attributes:
        kv_cache: Holds its first `n_cached` tokens; `model(ids[n_cached:], kv_cache=kv_cache)`
            goes on from there.
    """

    kv_cache: KVCache
    n_cached: int


class PrefixCache(SequencePages):
    """Keys and values of prompts, shared by all that begin alike, with the bits of computing them.

    A page is shared by reference and never written to again once it is full; the common part of a
    partly filled one is copied. Prompts share only under an equal `PrefixKey`. Where functions run
    inside passes (hooks, overrides), nothing is shared unless they say what they do (`edit_key`).
    """

    def __init__(
        self,
        model: CacheableModel,
        max_bytes: int,
        *,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        digest: Digest = hashlib.sha256,
    ) -> None:
        """Reserves the memory, which is not used before it is written to.

        Args:
            max_bytes: The bound on pages and index, those of sequences under way included.
            ttl: Pages that were not used for so many seconds are given up; None keeps them.
            clock: Seconds. One that runs backwards is taken to stand still.
            digest: A hash with the interface of `hashlib.sha256`.

        Raises:
            ValueError: for fewer bytes than one page takes, a negative `ttl`, and a model whose
                weights may change under it (`backend="torch"`).
        """
        if model.ops.differentiable:
            raise ValueError(
                'the weights of backend="torch" may change, and what was kept would be stale; load '
                "the model without it"
            )
        if ttl is not None and ttl < 0:
            raise ValueError(f"ttl = {ttl}: expected seconds, or None")
        self._page_bytes = kept_page_bytes(model)
        if max_bytes < self._page_bytes:
            raise ValueError(
                f"max_bytes = {max_bytes}: one page of {PAGE} tokens takes {self._page_bytes}"
            )
        super().__init__(model, capacity=max_bytes // self._page_bytes)
        self.model = model
        self.pool.reclaim = self._evict
        self._lock = self.pool.lock
        self._index = PrefixIndex(digest)
        self._nodes: OrderedDict[Node, None] = OrderedDict()  # those before their parents
        self._ttl, self._clock, self._now = ttl, clock, -float("inf")
        self._hits = self._misses = self._hit_tokens = self._evictions = 0

    # For sequences that are run one at a time

    def match(self, ids: Sequence[int], *, salt: str = "") -> int:
        """Returns how many tokens at the beginning of a prompt are known."""
        key = self.key(salt)
        with self._lock:
            return 0 if key is None else self._find(key, token_bytes(ids)).n_tokens

    @contextmanager
    def prompt(self, ids: Sequence[int], *, salt: str = "") -> Iterator[Prompt]:
        """Hands out a cache that holds the known beginning of a prompt, all but its last token at
        most; keeps what was run of the prompt when the block ends.

        Nothing is kept of a block that raises, or whose passes were edited otherwise than passes
        were when it began.
        """
        held = self.hold(ids, salt=salt)
        cache = self.over([held.sequence])
        try:
            yield Prompt(cache, held.n_cached)
            if held.key is not None and cache.edits <= {held.key.edits}:
                self.keep(held, ids)
        finally:
            self.release(held)

    def clear(self) -> None:
        """Gives up everything that is kept; sequences under way keep theirs."""
        with self._lock:
            for node in list(self._nodes):
                self._give_up(node)

    def stats(self) -> CacheStats:
        """Returns counts since the beginning, and what is held now."""
        with self._lock:
            self._expire()
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                hit_tokens=self._hit_tokens,
                pages_used=self.pool.n_used,
                pages_referenced=self.pool.n_references - len(self._nodes),
                evictions=self._evictions,
                bytes=self.pool.n_used * self._page_bytes,
            )

    # For an engine, which runs many

    def key(self, salt: str = "") -> PrefixKey | None:
        """Returns what a pass that begins now may share under; None if it may share nothing."""
        edits = self.model.edit_key()
        if edits is None:
            return None
        policy = self.model.ops.policy.name
        return PrefixKey(self.model.fingerprint(), policy, numerics_version, edits, salt)

    def hold(
        self, ids: Sequence[int], *, salt: str = "", observed_from: int | None = None
    ) -> HeldPrompt:
        """Returns a sequence that begins with what is known of these tokens.

        At most all but the last one, and none from `observed_from` on: what somebody wants to see
        there is computed again. `release` must follow.
        """
        key = self.key(salt)
        most = len(ids) - 1 if observed_from is None else min(len(ids) - 1, observed_from)
        with self._lock:
            self._expire()
            if key is None:
                return HeldPrompt(CachedSequence(), 0, None)
            found = self._find(key, token_bytes(ids))
            n = max(0, min(found.n_tokens, most))
            nodes = found.nodes[: pages_of(n)]
            pages = [node.page for node in nodes]
            self.pool.retain(pages)
            self._touch(nodes)
            self._hits += n > 0
            self._misses += n == 0
            self._hit_tokens += n
            n_known = n // PAGE
            leaf = nodes[n_known - 1] if n_known else None
            return HeldPrompt(CachedSequence(pages, n), n, key, leaf, n_known)

    def seal(self, held: HeldPrompt, ids: Sequence[int]) -> bool:
        """Makes the full pages of a sequence known; `ids` are its tokens from the first on.

        Where another sequence wrote the same page before, the sequence takes that one. Returns
        whether that happened: then caches over the sequence must be made anew.
        """
        if held.key is None or not held.has_news:
            return False
        n, exchanged = held.sequence.length // PAGE, False
        with self._lock:
            if not is_known(held.leaf):
                held.leaf, held.n_known = None, 0
            tokens = token_bytes(ids[: n * PAGE])
            for i in range(held.n_known, n):
                node = self._add(held, blocks_of(tokens, i), held.sequence.pages[i])
                if node is None:
                    held.key = None  # nothing that follows can be known either
                    break
                exchanged |= self._share(held.sequence, i, node)
                held.leaf, held.n_known = node, i + 1
        return exchanged

    def keep(self, held: HeldPrompt, ids: Sequence[int]) -> None:
        """Makes all pages of a sequence known, its last, partly filled one as well."""
        self.seal(held, ids)
        length = min(held.sequence.length, len(ids))
        start = held.n_known * PAGE
        if held.key is not None and 0 < length - start < PAGE:
            with self._lock:
                self._add(held, token_bytes(ids[start:length]), held.sequence.pages[held.n_known])

    def _find(self, key: PrefixKey, tokens: bytes) -> Match:
        return self._index.find(key.encoded(), tokens)

    def _add(self, held: HeldPrompt, tokens: bytes, page: int) -> Node | None:
        """Makes one more page of a sequence known; returns its node, or its twin's."""
        assert held.key is not None
        parent = held.leaf or self._index.new_root(held.key.encoded())
        node = None if parent is None else self._index.add(parent, tokens, page)
        if node is None:
            return None
        if node not in self._nodes:
            self.pool.retain([page])
            self._nodes[node] = None
        self._touch([*_ancestors(node), node])
        shorter = self._index.shorter(node)
        if shorter is not None and not self._is_in_use(shorter):
            self._give_up(shorter)
        return node

    def _share(self, sequence: CachedSequence, i: int, node: Node) -> bool:
        """Has a sequence hold the page that is known instead of a twin of its own."""
        if sequence.pages[i] == node.page:
            return False
        self.pool.retain([node.page])
        self.pool.release([sequence.pages[i]])
        sequence.pages[i] = node.page
        return True

    def _touch(self, nodes: Sequence[Node]) -> None:
        """Notes that these were used, the last one first: nothing is given up before what follows
        it."""
        now = self._time()
        for node in reversed(nodes):
            node.used = now
            self._nodes.move_to_end(node)

    def _is_in_use(self, node: Node) -> bool:
        return bool(node.ordered) or self.pool.references(node.page) > 1

    def _evict(self, n: int) -> None:
        """Gives up the n pages that were not used for longest and are not in use."""
        for node in islice(self._unused(), n):
            self._give_up(node)
            self._evictions += 1

    def _expire(self) -> None:
        if self._ttl is None:
            return
        last = self._time() - self._ttl
        for node in takewhile(lambda node: node.used < last, self._unused()):
            self._give_up(node)
            self._evictions += 1

    def _unused(self) -> Iterator[Node]:
        """The pages that are not in use, the oldest first; what is given up on the way makes room
        for what came before it."""
        return (node for node in list(self._nodes) if not self._is_in_use(node))

    def _give_up(self, node: Node) -> None:
        del self._nodes[node]
        self._index.remove(node)
        self.pool.release([node.page])

    def _time(self) -> float:
        self._now = max(self._now, self._clock())
        return self._now


def kept_page_bytes(model: CacheableModel) -> int:
    """Returns what one page takes of a cache's bytes, with its entry in the index."""
    return page_bytes(model.config, model.ops.policy.activation) + NODE_BYTES


def _ancestors(node: Node) -> list[Node]:
    """The pages before a node, from the first on."""
    found: list[Node] = []
    while node.parent is not None and node.parent.parent is not None:
        node = node.parent
        found.append(node)
    return found[::-1]
