"""A prompt that was cached has the bits of one that was not, at every cut, and nothing stale.

Tensor names: P positions, V vocabulary.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.cache import PrefixCache
from bitlens.model.cache.prefix_index import Node, PrefixIndex
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.transformer import HookedTransformer
from invariance.subjects import assert_same, with_dtypes
from support.random_models import CONFIGS, random_checkpoint, random_model

N = 200
LONG = {"n_ctx": 320}
MB = 1 << 20


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def prompt_of(model: HookedTransformer, seed: int = 0, n: int = N) -> list[int]:
    return [random.Random(seed).randrange(model.config.d_vocab) for _ in range(n)]


def branch(model: HookedTransformer, ids: list[int], cut: int) -> list[int]:
    """The same tokens up to a cut, then others."""
    return [*ids[:cut], *((each + 1) % model.config.d_vocab for each in ids[cut:])]


def run(model: HookedTransformer, cache: PrefixCache, ids: list[int], salt: str = "") -> Any:
    """How many tokens came from the cache, and the logits of the others."""
    with cache.prompt(ids, salt=salt) as prompt:
        rest = torch.tensor(ids[prompt.n_cached :])
        return prompt.n_cached, model(rest, kv_cache=prompt.kv_cache)[0]


def check_cuts(model: HookedTransformer, cuts: range) -> None:
    """Every cut has the bits of the whole, and finds as many tokens as there are."""
    cache = PrefixCache(model, 100 * MB)
    ids = prompt_of(model)
    assert run(model, cache, ids)[0] == 0
    for cut in cuts:
        other = branch(model, ids, cut)
        assert cache.match(other) == cut
        n_cached, rest_PV = run(model, cache, other)
        assert n_cached == cut
        whole_PV = model(torch.tensor(other))[0]
        assert_same({"logits": rest_PV}, {"logits": whole_PV[cut:]})
    assert cache.stats().hit_tokens == sum(cuts)
    # Its pages were read and copied all the while, and never written to.
    n_cached, last_PV = run(model, cache, ids)
    assert n_cached == N - 1
    assert_same({"logits": last_PV}, {"logits": model(torch.tensor(ids))[0][-1:]})


@pytest.mark.parametrize(("architecture", "dtype"), with_dtypes(CONFIGS))
def test_cuts_have_the_bits_of_the_whole(architecture: str, dtype: str) -> None:
    """Every cut in bf16, every ninth otherwise."""
    model = random_model(architecture, dtype=dtype, changes=LONG)
    check_cuts(model, range(0, N, 1 if dtype == "bf16" else 9))


@pytest.mark.nightly
@pytest.mark.parametrize(("architecture", "dtype"), with_dtypes(CONFIGS))
def test_every_cut_in_every_policy_on_two_threads(architecture: str, dtype: str) -> None:
    model = random_model(architecture, dtype=dtype, changes=LONG)
    bitlens.set_num_threads(2)
    check_cuts(model, range(N))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_cuts_over_two_ranks(dtype: str) -> None:
    checkpoint = random_checkpoint("llama", **LONG)

    def of_rank(group: Group) -> torch.Tensor:
        model = bitlens.load(checkpoint, dtype=dtype, group=group)
        check_cuts(model, range(0, N, 19))
        return model(torch.tensor(prompt_of(model)))  # type: ignore[no-any-return]

    alone = bitlens.load(checkpoint, dtype=dtype)
    want = alone(torch.tensor(prompt_of(alone)))
    for found in run_in_threads(2, of_rank, timeout=60.0):
        assert_same({"logits": found}, {"logits": want})


@pytest.mark.parametrize(
    ("architecture", "threads"), [*((each, 1) for each in CONFIGS), ("gemma3", 2)]
)
def test_hooks_and_losses_after_a_hit(architecture: str, threads: int) -> None:
    model = random_model(architecture, changes=LONG)
    bitlens.set_num_threads(threads)
    cache = PrefixCache(model, 4 * MB)
    ids = prompt_of(model)
    run(model, cache, ids)
    other = torch.tensor(branch(model, ids, 130))
    whole, kept = model.run_with_cache(other)
    with cache.prompt(other.tolist()) as prompt:
        assert prompt.n_cached == 130
        rest, found = model.run_with_cache(other[130:], kv_cache=prompt.kv_cache)
    assert torch.equal(rest[0], whole[0, 130:])
    for name, x in found.items():
        rows = kept[name]
        keyed = name.endswith(("hook_attn_scores", "hook_pattern"))
        assert torch.equal(x, rows[:, :, 130:] if keyed else rows[:, 130:]), name


def test_a_value_that_is_one_ulp_off_is_seen() -> None:
    """The control of the tests above: the pages were read. Of three tokens, so that none of a
    head's weights is small; one channel after the other."""
    model = random_model("llama", changes=LONG)
    cache = PrefixCache(model, 4 * MB)
    ids = prompt_of(model, n=3)
    run(model, cache, ids)
    whole = model(torch.tensor(ids))
    moved = 0
    for channel in range(model.config.d_head):
        with cache.prompt(ids) as prompt:
            (page,) = prompt.kv_cache.sequences[0].pages
            value = cache.pool.v[1, page, 0, 1, channel].view(torch.int32)
            value.add_(1)
            rest_PV = model(torch.tensor(ids[prompt.n_cached :]), kv_cache=prompt.kv_cache)[0]
            value.sub_(1)
        moved += not torch.equal(rest_PV, whole[0, prompt.n_cached :])
    assert moved > 0


def test_other_weights_policies_and_salts_share_nothing() -> None:
    model = random_model("llama", changes=LONG)
    cache = PrefixCache(model, 4 * MB)
    ids = prompt_of(model)
    run(model, cache, ids, "a")
    assert cache.match(ids, salt="a") == N
    assert cache.match(ids, salt="b") == cache.match(ids) == 0
    keys = {
        cache.key("a"),
        PrefixCache(random_model("llama", seed=1, changes=LONG), MB).key("a"),
        PrefixCache(random_model("llama", dtype="bf16", changes=LONG), MB).key("a"),
        PrefixCache(random_model("llama", changes={"n_ctx": 321}), MB).key("a"),
        cache.key("b"),
    }
    assert len(keys) == 5


def test_a_key_without_the_weights_would_be_stale() -> None:
    """The control: the same pages under a key that does not name the weights."""
    model, other = (random_model("llama", seed=seed, changes=LONG) for seed in (0, 1))
    ids = prompt_of(model)
    forged = PrefixCache(model, 4 * MB)
    run(model, forged, ids)
    forged.model = other
    assert forged.match(ids) == 0
    other.fingerprint = model.fingerprint  # type: ignore[method-assign]
    n_cached, rest_PV = run(other, forged, branch(other, ids, 150))
    assert n_cached == 150
    assert not torch.equal(rest_PV, other(torch.tensor(branch(other, ids, 150)))[0][150:])


class Trusting(PrefixIndex):
    def holds(self, node: Node, block: bytes) -> bool:
        return True


def colliding(data: bytes) -> Any:
    return SimpleNamespace(digest=lambda: b"the same")


@pytest.mark.parametrize("index", [PrefixIndex, Trusting])
def test_a_digest_that_collides_finds_nothing_false(index: type[PrefixIndex]) -> None:
    model = random_model("llama", changes=LONG)
    cache = PrefixCache(model, 4 * MB, digest=colliding)
    cache._index = index(colliding)
    ids, other = prompt_of(model), prompt_of(model, 1)
    run(model, cache, ids)
    n_cached, rest_PV = run(model, cache, other)
    same = torch.equal(rest_PV, model(torch.tensor(other))[0][n_cached:])
    assert same == (index is PrefixIndex), "the control must differ"
    assert run(model, cache, other)[0] == 0 or index is Trusting
    assert cache.match(ids, salt="another key, the same digest") == 0


def test_edits_share_nothing_unless_they_say_what_they_do() -> None:
    model = random_model("llama", changes=LONG)
    cache = PrefixCache(model, 4 * MB)
    ids = prompt_of(model)

    def double(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return x * 2

    at = "blocks.0.hook_resid_pre"
    run(model, cache, ids)
    with model.hooks([(at, double)]):
        assert cache.key() is None
        edited_PV = model(torch.tensor(ids))[0]
        for _ in range(2):
            assert cache.match(ids) == 0
            n_cached, found_PV = run(model, cache, ids)
            assert n_cached == 0
            assert torch.equal(found_PV, edited_PV)
    double.cache_key = "double"  # type: ignore[attr-defined]
    with model.hooks([(at, double)]):
        assert run(model, cache, ids)[0] == 0
        n_cached, found_PV = run(model, cache, ids)
        assert n_cached == N - 1
        assert torch.equal(found_PV, edited_PV[-1:])
    with model.override("blocks.1.mlp.act", lambda original, *args: original(*args)):
        assert cache.key() is None
    assert run(model, cache, ids)[0] == N - 1
    # Hooks of the call alone, which the cache cannot foresee.
    other = prompt_of(model, 1)
    with cache.prompt(other) as prompt:
        model.run_with_hooks(torch.tensor(other), [(at, double)], kv_cache=prompt.kv_cache)
    assert cache.match(other) == 0


def test_the_pool_is_as_it_was_after_a_pass_that_fails() -> None:
    model = random_model("llama", changes=LONG)
    cache = PrefixCache(model, 4 * MB)
    ids = prompt_of(model)

    def fail(x: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("stop here")

    run(model, cache, ids[:100])
    before = cache.stats()
    hooks = [("blocks.1.hook_resid_mid", fail)]
    with pytest.raises(RuntimeError, match="stop here"), cache.prompt(ids) as prompt:
        model.run_with_hooks(torch.tensor(ids[100:]), hooks, kv_cache=prompt.kv_cache)
    after = cache.stats()
    assert (after.pages_used, after.pages_referenced) == (before.pages_used, 0)
    assert run(model, cache, ids)[0] == 100


def test_bytes_stay_within_the_bound_and_the_oldest_leaves_go_first() -> None:
    model = random_model("llama", changes=LONG)
    page = PrefixCache(model, MB)._page_bytes
    cache = PrefixCache(model, 8 * page)
    prompts = [prompt_of(model, seed) for seed in range(3)]
    for ids in prompts:  # four pages each
        run(model, cache, ids)
        assert cache.stats().bytes <= 8 * page
    assert [cache.match(ids) for ids in prompts] == [0, N, N]
    run(model, cache, prompts[1])  # used again, so that the third is now the oldest
    run(model, cache, prompts[0][:70])
    assert [cache.match(ids) for ids in prompts] == [70, N, 128]
    assert cache.stats().evictions == 6
    cache.clear()
    assert cache.stats().pages_used == 0
    small = PrefixCache(model, 3 * page)
    run(model, small, prompts[1][:100])
    with pytest.raises(MemoryError, match="3 pages of 64 tokens, and 1 too few"):
        run(model, small, prompts[0])
    assert run(model, small, prompts[0][:150])[0] == 0


def test_prompts_expire_by_a_clock_that_may_run_backwards() -> None:
    model = random_model("llama", changes=LONG)
    now = [0.0]
    cache = PrefixCache(model, 4 * MB, ttl=10, clock=lambda: now[0])
    ids = prompt_of(model)
    run(model, cache, ids)
    for now[0], known in ((9.0, True), (18.0, True), (3.0, True), (28.5, False)):
        cache.stats()
        assert (cache.match(ids) > 0) == known
        if known:
            run(model, cache, ids)
    assert cache.stats().pages_used == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": -1}, "one page of 64 tokens takes"),
        ({"max_bytes": 100}, "one page of 64 tokens takes"),
        ({"max_bytes": MB, "ttl": -1}, "ttl"),
    ],
)
def test_bounds_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixCache(random_model("llama"), **options)


def test_weights_that_may_change_are_refused() -> None:
    with pytest.raises(ValueError, match="stale"):
        PrefixCache(random_model("llama", dtype="fp32", backend="torch"), MB)
