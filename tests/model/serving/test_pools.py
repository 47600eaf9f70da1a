"""Pools of a short and a long context: shared weights, fingerprints, sticky conversations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.config_error import ConfigError
from bitlens.model.hooks.registry import same_bits
from bitlens.model.serving import Engine, Pool, Request, Router, WrongPool, long_context, router
from bitlens.model.transformer import HookedTransformer
from support.random_models import random_checkpoint, random_model

FACTOR = 4.0
YARN = {"rope_type": "yarn", "factor": FACTOR}


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", dtype="bf16")


@pytest.fixture
def pools(model: HookedTransformer) -> Iterator[Router]:
    with Router([Pool("long", long_context(model, 500)), Pool("short", model)]) as made:
        yield made


def prompt(n: int, seed: int = 0) -> list[int]:
    return torch.randint(250, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "hf_bf16"])
@pytest.mark.parametrize("rope_type", ["yarn", "ntk"])
def test_a_shared_model_is_the_one_that_load_gives(dtype: str, rope_type: str) -> None:
    checkpoint = random_checkpoint("gemma3")
    scaling = {"rope_type": rope_type, "factor": FACTOR}
    own = bitlens.load(checkpoint, dtype=dtype)
    shared, loaded = (
        own.with_rope_scaling(scaling),
        bitlens.load(checkpoint, dtype=dtype, rope_scaling=scaling),
    )
    tokens = torch.tensor(prompt(300))
    assert same_bits(shared(tokens), loaded(tokens))
    assert not same_bits(shared(tokens[:100]), own(tokens[:100]))
    assert shared.config == loaded.config
    assert shared.fingerprint() == loaded.fingerprint() != own.fingerprint()
    for a, b in zip(own.blocks, shared.blocks, strict=True):
        assert a.attn.q.weight is b.attn.q.weight
        assert a.mlp.down.weight is b.mlp.down.weight
    assert own.embed.weight is shared.embed.weight
    assert own.unembed.weight is shared.unembed.weight


def test_hooks_stay_behind_and_files_are_opened_again(smollm2_path: Path) -> None:
    own = bitlens.load(smollm2_path)
    own.add_hook("hook_embed", lambda tensor, hook: tensor * 0)
    shared = own.with_rope_scaling(YARN)
    assert own.is_watched
    assert not shared.is_watched
    assert shared.origin.options["rope_scaling"] == YARN  # type: ignore[union-attr]
    assert shared.config.n_ctx == FACTOR * own.config.n_ctx


def test_what_cannot_share_says_so(model: HookedTransformer) -> None:
    parameters = bitlens.load(random_checkpoint("llama"), backend="torch")
    with pytest.raises(ValueError, match="load it again with rope_scaling"):
        parameters.with_rope_scaling(YARN)
    with pytest.raises(ConfigError, match="changes its frequencies"):
        model.with_rope_scaling({"rope_type": "dynamic", "factor": 2.0})


def test_a_long_context_is_a_multiple_of_the_own(model: HookedTransformer) -> None:
    assert [long_context(model, n).config.n_ctx for n in (129, 256, 257)] == [256, 256, 384]
    with pytest.raises(ConfigError, match="has 128 already"):
        long_context(model, 128)
    with pytest.raises(ConfigError, match="scaled already"):
        long_context(long_context(model, 256), 1000)
    with pytest.raises(ConfigError, match="'yarn' or 'ntk'"):
        long_context(model, 256, "linear")  # type: ignore[arg-type]


def test_requests_go_where_they_fit_with_the_bits_of_generate(pools: Router) -> None:
    assert [pool.name for pool in pools.pools] == ["short", "long"]
    for n, name in ((10, "short"), (118, "short"), (119, "long"), (400, "long")):
        request = Request(prompt(n), max_new_tokens=10, logprobs=0)
        route = pools.route(request)
        assert route.pool.name == name
        assert route.request.pool_fingerprint == route.pool.fingerprint
        found = pools.submit(request).result()
        own = route.pool.engine.model.generate(prompt(n), max_new_tokens=10)  # type: ignore[attr-defined]
        assert found.ids == own.tokens[0, n:].tolist()
    with pytest.raises(ValueError, match="context of 512"):
        pools.submit(Request(prompt(510), max_new_tokens=10))


def test_a_pool_refuses_what_is_meant_for_another(pools: Router) -> None:
    """10,000 misroutes, none of which is answered; what comes after them is."""
    short, long = pools.pools
    request = pools.route(Request(prompt(20), max_new_tokens=2)).request
    for _ in range(10_000):
        with pytest.raises(WrongPool, match=long.fingerprint):
            long.submit(request)
    assert (long.n_taken, long.n_refused, long.engine.stats().steps) == (0, 10_000, 0)
    assert short.submit(request).result().usage.output == 2
    # Without its fingerprint the other pool would answer, and otherwise.
    asked = Request(prompt(20), max_new_tokens=2, logprobs=0)
    a, b = (pool.submit(asked).result() for pool in pools.pools)
    assert a.logprobs != b.logprobs


def test_the_one_that_is_named_is_asked(pools: Router) -> None:
    long = pools.pools[1]
    named = Request(prompt(20), max_new_tokens=2, pool_fingerprint=long.fingerprint)
    assert pools.route(named).pool is long
    with pytest.raises(WrongPool, match=r"here is .*short.*long"):
        pools.submit(Request(prompt(20), pool_fingerprint="bl_0"))


def test_a_conversation_moves_once_by_being_computed_again(pools: Router) -> None:
    said = prompt(60)
    where, cached = [], []
    for turn in range(8):
        request = Request(said, max_new_tokens=10)
        where.append(pools.route(request, "one").pool.name)
        answer = pools.submit(request, conversation="one").result()
        cached.append(answer.usage.cached)
        want = pools.route(request).pool.engine.model.generate(said, max_new_tokens=10)  # type: ignore[attr-defined]
        assert answer.ids == want.tokens[0, len(said) :].tolist()
        said = [*said, *answer.ids, *prompt(4, turn)]
    assert where == ["short"] * 5 + ["long"] * 3
    assert pools.n_moved == 1
    assert cached[0] == cached[5] == 0  # nothing of one pool is read in the other
    assert min(cached[1:5] + cached[6:]) >= 60
    # It stays where it is, if it becomes shorter; others start in the short pool.
    assert pools.route(Request(said[:20]), "one").pool.name == "long"
    assert pools.route(Request(said[:20]), "two").pool.name == "short"


def test_conversations_that_were_silent_longest_are_forgotten(
    pools: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "MAX_CONVERSATIONS", 2)
    long, short = (Request(prompt(n), max_new_tokens=10) for n in (200, 20))
    for name in ("a", "b"):
        assert pools.route(long, name).pool.name == "long"
    pools.route(short, "a")
    pools.route(short, "c")  # forgets b
    assert [pools.route(short, name).pool.name for name in ("a", "b")] == ["long", "short"]


def test_pools_that_cannot_be_told_apart(model: HookedTransformer) -> None:
    longer = long_context(model, 256)
    for pools, field in (
        ([Pool("a", model), Pool("a", longer)], "name"),
        ([Pool("a", longer), Pool("b", long_context(model, 256, "ntk"))], "context"),
    ):
        with pytest.raises(ValueError, match=f"the same {field}"):
            Router(pools)
    with pytest.raises(ValueError, match="at least one"):
        Router([])
    with Engine(model) as engine:
        assert (
            Pool.of("a", engine).fingerprint == engine.fingerprint != Pool("b", longer).fingerprint
        )
