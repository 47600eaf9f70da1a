"""Pages of keys and values."""

from __future__ import annotations

import pytest
import torch
from bitlens.model import KVCache
from bitlens.model.batch import RaggedBatch
from bitlens.model.cache.page_pool import PAGE
from hypothesis import given
from hypothesis import strategies as st
from support.random_models import CONFIGS, random_model

CONFIG = CONFIGS["mistral"]
SHAPE = (CONFIG.n_key_value_heads, CONFIG.d_head)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """The tensors are tiny: threads would only wait for each other."""
    torch.set_num_threads(1)


def append(cache: KVCache, lengths: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Writes random keys and values to every layer; returns those of each sequence."""
    width = max(lengths)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    batch = RaggedBatch.from_tokens(tokens, mask, cache.lengths)
    k, v = torch.randn(batch.n_rows, *SHAPE), torch.randn(batch.n_rows, *SHAPE)
    cache.reserve(batch)
    for i in range(CONFIG.n_layers):
        cache.layer(i).write(batch, k, v + i)
    cache.advance(batch)
    return list(zip(k.split(lengths), v.split(lengths), strict=True))


@given(st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=4))
def test_what_was_appended_is_gathered(appends: list[tuple[int, int]]) -> None:
    cache = KVCache(CONFIG, 2, torch.float32)
    written = [append(cache, list(lengths)) for lengths in appends]
    for b in range(2):
        k = torch.cat([step[b][0] for step in written])
        v = torch.cat([step[b][1] for step in written])
        assert cache.lengths[b] == len(k)
        for i in range(CONFIG.n_layers):
            found_k, found_v = cache.layer(i).gather(b, len(k))
            assert torch.equal(found_k, k)
            assert torch.equal(found_v, v + i)
    assert cache.pool.n_pages == sum(-(-length // PAGE) for length in cache.lengths)


@given(st.data())
def test_rows_that_stay_keep_what_they_hold(data: st.DataObject) -> None:
    """The pages of rows that left are used again before new ones are taken."""
    cache = KVCache(CONFIG, 3, torch.float32)
    held: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[], [], []]
    for _ in range(data.draw(st.integers(1, 5), "steps")):
        n = cache.batch_size
        lengths = data.draw(st.lists(st.integers(1, 150), min_size=n, max_size=n), "lengths")
        before, free = cache.pool.n_pages, cache.pool.n_free
        for row, written in zip(held, append(cache, lengths), strict=True):
            row.append(written)
        in_use = sum(-(-length // PAGE) for length in cache.lengths)
        assert cache.pool.n_pages == max(before, in_use) == in_use + cache.pool.n_free
        assert cache.pool.n_free <= free
        rows = data.draw(st.permutations(range(n)), "order")
        rows = rows[: data.draw(st.integers(1, n), "kept")]
        cache.keep(rows)
        held = [held[b] for b in rows]
        for b, row in enumerate(held):
            k, v = (torch.cat([step[i] for step in row]) for i in range(2))
            assert cache.lengths[b] == len(k)
            found_k, found_v = cache.layer(1).gather(b, len(k))
            assert torch.equal(found_k, k)
            assert torch.equal(found_v, v + 1)


@given(
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=3),
    more=st.integers(1, 70),
    data=st.data(),
)
def test_rows_that_are_named_several_times_share_pages_until_they_write(
    lengths: list[int], more: int, data: st.DataObject
) -> None:
    n = len(lengths)
    cache = KVCache(CONFIG, n, torch.float32)
    held = append(cache, lengths)
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5), "rows")
    cache.keep(rows)
    in_use = {row: -(-lengths[row] // PAGE) for row in rows}
    assert cache.pool.n_used == sum(in_use.values())
    after = append(cache, [more] * len(rows))
    for b, row in enumerate(rows):
        k = torch.cat([held[row][0], after[b][0]])
        assert torch.equal(cache.layer(1).gather(b, len(k))[0], k)
    cache.keep([0])
    assert cache.pool.n_used == cache.pool.n_references == -(-(lengths[rows[0]] + more) // PAGE)


@pytest.mark.parametrize("rows", [[], [2], [-1]])
def test_keeping_rows_that_are_none_is_an_error(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="keep"):
        KVCache(CONFIG, 2, torch.float32).keep(rows)


def test_a_pass_that_fails_leaves_the_sequences_as_they_were() -> None:
    model = random_model("mistral")
    tokens = torch.arange(70)[None]
    cache = model.new_cache()
    model(tokens, kv_cache=cache)

    def fail(tensor: torch.Tensor, hook: object) -> None:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        model.run_with_hooks(tokens[:, :50], [("blocks.1.hook_resid_mid", fail)], kv_cache=cache)
    assert cache.lengths == [70]
    after = model(tokens[:, :5], kv_cache=cache)
    clean = model.new_cache()
    model(tokens, kv_cache=clean)
    assert torch.equal(after, model(tokens[:, :5], kv_cache=clean))


def test_a_cache_of_another_kind_is_refused() -> None:
    model = random_model("mistral")
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    for cache, message in (
        (KVCache(CONFIG, 1, torch.float32), "made for 1 sequences"),
        (KVCache(CONFIG, 2, torch.bfloat16), "bfloat16"),
        (KVCache(CONFIGS["llama"], 2, torch.float32), "another config"),
    ):
        with pytest.raises(ValueError, match=f"kv_cache.*{message}"):
            model(tokens, kv_cache=cache)
    with pytest.raises(ValueError, match="batch_size"):
        KVCache(CONFIG, 0, torch.float32)
    with pytest.raises(ValueError, match="stop_at_layer"):
        model(tokens, kv_cache=model.new_cache(2), stop_at_layer=1)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_torch_backend_cached_agrees_with_uncached(architecture: str) -> None:
    model = random_model(architecture, dtype="fp64", backend="torch")
    tokens = torch.arange(20).view(2, 10)
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    with torch.no_grad():
        whole = model(tokens, mask)
        cache = model.new_cache(2)
        pieces = [model(tokens[:, :4], mask[:, :4], cache)]
        pieces += [model(tokens[:, i : i + 2], kv_cache=cache) for i in range(4, 10, 2)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-12, rtol=0)
    assert cache.key_offsets == [3, 0]
