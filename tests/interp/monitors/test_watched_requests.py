"""Monitors of an engine's requests score as in `generate` and one pass, whoever runs beside."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Monitor
from bitlens.interp.probes import Probe
from bitlens.model import HookedTransformer
from bitlens.model.batching.continuous_batch import ContinuousBatch
from bitlens.model.cache.page_pool import page_bytes
from bitlens.model.cache.prefix_cache import NODE_BYTES, PrefixCache
from bitlens.model.serving import Completion, Engine, Handle, Request
from bitlens.model.serving.row import RequestRow
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_models import random_model
from support.random_probes import random_attention, random_probe, whole_scores
from support.static_generation import static

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.mlp.hook_post", "blocks.2.attn.hook_z")
AGGREGATES = ("mean", "last", "max", "rolling:3", "ema:0.25")


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    return random_model("mistral", dtype=request.param, changes={"n_ctx": 320})


def bits(x: torch.Tensor) -> list[int]:
    return x.contiguous().view(torch.int32).tolist()  # type: ignore[no-any-return]


def probes_of(model: HookedTransformer, i: int) -> dict[str, Probe]:
    """Other hooks and aggregates for each request, and now and then a probe of another kind."""
    chosen = [
        (HOOKS[(i + k) % 3], AGGREGATES[(i * 2 + k) % 5], 10 * i + k) for k in range(i % 3 + 1)
    ]
    found = {f"{hook}/{a}": random_probe(model, hook, a, seed) for hook, a, seed in chosen}
    return found | ({"attention": random_attention(model, HOOKS[0], i)} if i % 4 == 3 else {})


def asked(model: HookedTransformer, n: int, seed: int) -> list[dict[str, Any]]:
    """Returns the fields of n requests: prompts that share beginnings of all lengths."""
    draw = random.Random(seed)
    base = [draw.randrange(model.config.d_vocab) for _ in range(150)]
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.8, "top_k": 20, "seed": 2, "n": 2},
        {"temperature": 1.0, "seed": 3, "stop": lambda ids, text: len(ids) == ids[0] % 6 + 2},
    ]
    return [
        {
            "prompt": [*base[: draw.randrange(1, 150)], draw.randrange(model.config.d_vocab)],
            "max_new_tokens": draw.randrange(1, 14),
            **options[i % 4],
        }
        for i in range(n)
    ]


def watching(probes: dict[str, Probe]) -> list[Monitor]:
    return [Monitor(probe, name=name) for name, probe in probes.items()]


def check_scores(
    model: HookedTransformer, probes: dict[str, Probe], wanted: dict[str, Any], found: Any
) -> None:
    """Every sample's tokens and scores have the bits of `generate`, and of one pass."""
    alone = model.generate(**wanted, monitors=watching(probes))
    plain = model.generate(**wanted)
    assert torch.equal(alone.tokens, plain.tokens)
    for row, each in enumerate(found):
        real = alone.attention_mask[row] == 1
        tokens = [*each.prompt_ids, *each.ids]
        assert tokens == alone.tokens[row][real].tolist()
        assert each.finish_reason == alone.finish_reason[row]
        assert set(each.scores) == set(probes)
        for name, probe in probes.items():
            scores = each.scores[name]
            assert len(scores) == len(tokens)
            assert not scores.isnan().any()
            assert bits(scores) == bits(alone.scores[name][row][real])
            if row == 0:
                assert bits(scores) == bits(whole_scores(model, probe, tokens))
                assert bits(scores) != bits(whole_scores(model, probe, tokens[::-1]))


def cache_bytes(model: HookedTransformer, n_pages: int) -> int:
    return n_pages * (page_bytes(model.config, model.ops.policy.activation) + NODE_BYTES)


@settings(max_examples=4)
@given(
    seed=st.integers(0, 1000),
    budget=st.integers(8, 90),
    n_pages=st.integers(12, 60),
    watched=st.sets(st.integers(0, 8), min_size=4),
)
def test_scores_have_the_bits_of_generate_and_of_one_pass(
    model: HookedTransformer, seed: int, budget: int, n_pages: int, watched: set[int]
) -> None:
    """In any order, cold and warm, in prompts cut anywhere, beside those that nobody watches."""
    wanted = asked(model, 9, seed)
    probes = [probes_of(model, i) if i in watched else {} for i in range(9)]
    order = random.Random(seed).sample(range(9), 9)
    n_bytes = cache_bytes(model, n_pages)
    with Engine(model, max_running=5, token_budget=budget, cache_bytes=n_bytes) as engine:
        for _ in range(2):
            handles: dict[int, Handle] = {
                i: engine.submit(Request(**wanted[i], monitors=watching(probes[i]))) for i in order
            }
            found = {i: handle.results() for i, handle in handles.items()}
            for i in order:
                check_scores(model, probes[i], wanted[i], found[i])
        stats = engine.stats()
        assert engine.cache.pool.n_references == len(engine.cache._nodes)
    assert stats.running == stats.waiting == 0


def prompt_twice(model: HookedTransformer) -> tuple[dict[str, Probe], dict[str, Any], Completion]:
    """A watched request after one that left its prompt in the cache, and what it asked for."""
    probes, wanted = probes_of(model, 2), asked(model, 1, 5)[0]
    wanted["prompt"] = [each % 250 for each in range(3, 150)]
    with Engine(model, token_budget=40) as engine:
        engine.submit(Request(**wanted)).result()
        assert engine.cache.match(wanted["prompt"]) == len(wanted["prompt"])
        return probes, wanted, engine.submit(Request(**wanted, monitors=watching(probes))).result()


def test_cached_positions_are_computed_again(model: HookedTransformer) -> None:
    probes, wanted, found = prompt_twice(model)
    assert found.usage.cached == 0
    check_scores(model, probes, wanted, [found])


def test_monitors_of_lower_blocks_run_no_block_above_them(model: HookedTransformer) -> None:
    """Each sample's monitors look at the kept prompt again, and the answer takes it as it is."""
    hooks = HOOKS[:2]
    probes = {h: random_probe(model, h, "mean", seed) for seed, h in enumerate(hooks)}
    wanted: dict[str, Any] = {
        "prompt": [i % 250 for i in range(3, 150)],
        "max_new_tokens": 5,
        "temperature": 1.0,
        "seed": 2,
        "n": 3,
    }
    n = len(wanted["prompt"])
    with Engine(model, token_budget=40) as engine:
        engine.submit(Request(**wanted)).results()
        before = engine.stats()
        found = engine.submit(Request(**wanted, monitors=watching(probes))).results()
        after = engine.stats()
    check_scores(model, probes, wanted, found)
    assert after.replayed - before.replayed == 3 * (n - 1)
    assert after.tokens - before.tokens == 3 * (1 + 5)
    assert [each.usage.cached for each in found] == [0, 0, 0]


def test_a_hit_that_shows_monitors_nothing_would_be_found(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with what is cached left out, the comparison fails."""
    hold = PrefixCache.hold

    def careless(self: PrefixCache, ids: Any, *, salt: str = "", observed_from: Any = None) -> Any:
        return hold(self, ids, salt=salt)

    monkeypatch.setattr(PrefixCache, "hold", careless)
    monkeypatch.setattr(RequestRow, "n_unseen", 0)
    probes, wanted, found = prompt_twice(model)
    assert found.usage.cached > 100
    with pytest.raises(AssertionError):
        check_scores(model, probes, wanted, [found])


def test_preemption_shows_no_token_twice(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored tokens stay scored; the rest comes from the cache or is computed again."""
    preempted: list[tuple[int, int]] = []
    preempt = ContinuousBatch._preempt

    def note(self: ContinuousBatch[Any], row: Any) -> None:
        preempted.append((row.watched.n_seen, len(row.sequence.prompt)))
        preempt(self, row)

    monkeypatch.setattr(ContinuousBatch, "_preempt", note)
    wanted = [{**each, "max_new_tokens": 40} for each in asked(model, 8, seed=3)]
    told: dict[tuple[int, int], list[tuple[int, int]]] = {}
    with Engine(model, max_running=5, token_budget=30, cache_bytes=cache_bytes(model, 8)) as engine:
        handles = []
        for i, each in enumerate(wanted):

            def tell(row: int, position: int, token: int, score: float, i: int = i) -> None:
                told.setdefault((i, row), []).append((position, token))

            monitors = watching(probes_of(model, i))
            monitors[0].on_score = tell
            handles.append(engine.submit(Request(**each, monitors=monitors)))
        found = [handle.results() for handle in handles]
        assert engine.stats().preemptions == len(preempted)
    assert any(0 < n_seen < n_prompt for n_seen, n_prompt in preempted)  # while it was read
    assert any(n_seen > n_prompt for n_seen, n_prompt in preempted)  # while it wrote
    for i, each in enumerate(wanted):
        check_scores(model, probes_of(model, i), each, found[i])
        for row, completion in enumerate(found[i]):
            tokens = [*completion.prompt_ids, *completion.ids]
            assert told[i, row] == list(enumerate(tokens))


def test_captures_beside_monitors_are_those_of_generate(model: HookedTransformer) -> None:
    names = [HOOKS[0], "blocks.2.attn.hook_pattern", "blocks.1.attn.hook_q"]
    wanted: dict[str, Any] = {"prompt": list(range(70)), "max_new_tokens": 5, "capture": names}
    probes = probes_of(model, 2)
    want = static(model, **wanted)
    with Engine(model, max_running=3, token_budget=30) as engine:
        others = [engine.submit(Request(**each)) for each in asked(model, 2, 1)]
        found = engine.submit(Request(**wanted, monitors=watching(probes))).result()
        assert all(other.results() for other in others)
    assert found.captured.keys() == set(names)
    for name, x in found.captured.items():
        assert torch.equal(x, want.captured[name]), name
    check_scores(model, probes, wanted, [found])
