"""Pages by random operations, against a dictionary that forgets nothing. No model runs: a page's
content says which tokens it was written for."""

from __future__ import annotations

import tracemalloc
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bitlens.model.batch import RaggedBatch
from bitlens.model.cache import PAGE, KVCache, PrefixCache
from bitlens.model.cache.prefix_cache import NODE_BYTES
from bitlens.model.cache.prefix_index import Node
from bitlens.model.cache.sequence_pages import HeldPrompt
from bitlens.model.transformer import HookedTransformer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.random_models import random_model

MODEL = random_model("llama", changes={"n_ctx": 1024})
N_PAGES = 12

ACTIONS = ["ask"] * 4 + ["run_on"] * 4 + ["leave"] * 4 + ["wait", "clear"]
bits = st.sampled_from([0, 1])
prefixes = st.tuples(bits, bits, bits)
lengths = st.one_of(st.sampled_from([63, 64, 65, 90, 128, 150]), st.integers(1, 150))


def ids_of(marks: tuple[int, int, int], length: int) -> list[int]:
    """Tokens that branch at 50 and at 100, inside a page and past its end."""
    return [marks[0] if i < 50 else marks[1] if i < 100 else marks[2] for i in range(length)]


def content(ids: list[int]) -> torch.Tensor:
    """Returns a number for the last of these positions that depends on all of them."""
    return torch.tensor(float(zlib.crc32(bytes(ids))), dtype=torch.float32)


@dataclass
class Under:
    """A sequence under way."""

    held: HeldPrompt
    ids: list[int]
    salt: str


def write(cache: PrefixCache, under: Under, upto: int) -> None:
    """A pass over the tokens up to a position, as far as the cache is concerned."""
    sequence = under.held.sequence
    n = upto - sequence.length
    kv = KVCache.over(MODEL.config, cache.pool, [sequence])
    tokens = torch.tensor([under.ids[sequence.length : upto]])
    batch = RaggedBatch.from_tokens(tokens, None, kv.lengths, kv.key_offsets)
    kv.reserve(batch)
    shape = n, MODEL.config.n_key_value_heads, MODEL.config.d_head
    at = torch.stack([content(under.ids[: i + 1]) for i in range(sequence.length, upto)])
    x = at[:, None, None].expand(shape)
    for layer in range(MODEL.config.n_layers):
        kv.layer(layer).write(batch, x, x + layer)
    kv.advance(batch)


def check(cache: PrefixCache, under: Under) -> None:
    """Asserts that a sequence holds what was written for its tokens."""
    n = under.held.sequence.length
    if n == 0:
        return
    kv = KVCache.over(MODEL.config, cache.pool, [under.held.sequence])
    want = torch.stack([content(under.ids[: i + 1]) for i in range(n)])
    for layer in range(MODEL.config.n_layers):
        k, v = kv.layer(layer).gather(0, n)
        assert torch.equal(k[:, 0, 0], want)
        assert torch.equal(v[:, 0, -1], want + layer)


def check_kept(cache: PrefixCache, node: Node) -> None:
    """Asserts that a page of the index holds what was written for its tokens."""
    before, n = b"", len(node.tokens) // 4
    above = node.parent
    while above is not None and above.parent is not None:
        before, above = above.tokens + before, above.parent
    ids = np.frombuffer(before + node.tokens, dtype=">u4").tolist()
    want = torch.stack([content(ids[: i + 1]) for i in range(len(ids) - n, len(ids))])
    assert torch.equal(cache.pool.v[1, node.page, 0, :n, 0], want + 1)


class Prompts(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        page = PrefixCache(MODEL, 1 << 20)._page_bytes
        self.bound = N_PAGES * page
        self.cache = PrefixCache(MODEL, self.bound, ttl=50, clock=lambda: self.now)
        self.under: list[Under] = []
        self.kept: set[tuple[str, tuple[int, ...]]] = set()

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """One operation. They are drawn here, since the machine would leave out whole rules."""
        action = data.draw(st.sampled_from(ACTIONS))
        if action == "ask":
            salt = data.draw(st.sampled_from(["", "", "", "s"]))
            self.ask(data.draw(prefixes), data.draw(lengths), salt)
        elif action == "wait":
            self.now += data.draw(st.floats(-10, 30))
        elif action == "clear":
            if data.draw(st.booleans()):
                self.clear()
        elif self.under:
            which = data.draw(st.integers(0, len(self.under) - 1))
            if action == "run_on":
                self.run_on(self.under[which], data.draw(st.sampled_from([0, 0.5, 1, 1])))
            else:
                self.leave(self.under.pop(which), data.draw(st.sampled_from([True, True, False])))

    def ask(self, prefix: tuple[int, int, int], length: int, salt: str) -> None:
        if len(self.under) == 3:
            return
        ids = ids_of(prefix, length)
        held = self.cache.hold(ids, salt=salt)
        assert held.n_cached == held.sequence.length < length
        found = Under(held, ids, salt)
        assert any(s == salt and k[: held.n_cached] == tuple(ids[: held.n_cached])
                   for s, k in self.kept) or held.n_cached == 0  # fmt: skip
        self.under.append(found)
        check(self.cache, found)

    def run_on(self, under: Under, share: float) -> None:
        n = under.held.sequence.length
        upto = n + max(1, int((len(under.ids) - n) * share))
        if upto > len(under.ids):
            return
        try:
            write(self.cache, under, upto)
        except MemoryError:
            assert self.cache.stats().pages_used == N_PAGES
            return
        self.cache.seal(under.held, under.ids)
        self.kept.add((under.salt, tuple(under.ids[: upto // PAGE * PAGE])))

    def leave(self, under: Under, keeps: bool) -> None:
        check(self.cache, under)
        if keeps:
            self.kept.add((under.salt, tuple(under.ids[: under.held.sequence.length])))
            self.cache.keep(under.held, under.ids)
        self.cache.release(under.held)

    def clear(self) -> None:
        self.cache.clear()
        self.kept = {(u.salt, tuple(u.ids[: u.held.sequence.length])) for u in self.under}

    @invariant()
    def nothing_is_overwritten_and_the_bound_holds(self) -> None:
        for under in getattr(self, "under", []):
            check(self.cache, under)
        if hasattr(self, "cache"):
            assert self.cache.stats().bytes <= self.bound
            for node in self.cache._nodes:
                check_kept(self.cache, node)

    def teardown(self) -> None:
        for under in getattr(self, "under", []):
            self.cache.release(under.held)
        if hasattr(self, "cache"):
            self.cache.clear()
            stats = self.cache.stats()
            assert (stats.pages_used, stats.pages_referenced) == (0, 0)
            assert self.cache.pool.n_references == 0
            assert not self.cache._index._roots


TestPrompts = Prompts.TestCase
TestPrompts.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)


@pytest.mark.nightly
class TestTenThousandOperations(Prompts.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_the_index_stays_within_its_share() -> None:
    """The bytes that a page's entry takes in Python, at random prompts and many salts."""
    model: HookedTransformer = MODEL
    cache = PrefixCache(model, 2000 * PrefixCache(model, 1 << 20)._page_bytes)
    generator = torch.Generator().manual_seed(0)

    def fill(n: int) -> None:
        for i in range(n):
            ids = torch.randint(250, (130,), generator=generator).tolist()
            held = cache.hold(ids, salt=str(i % 50))
            pages = cache.pool.take(3)
            held.sequence.pages, held.sequence.length = pages, 130
            cache.keep(held, ids)
            cache.release(held)

    fill(50)
    tracemalloc.start()
    before, pages = tracemalloc.get_traced_memory()[0], cache.stats().pages_used
    fill(400)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    n = cache.stats().pages_used - pages
    assert n == 1200
    assert grown / n <= NODE_BYTES
