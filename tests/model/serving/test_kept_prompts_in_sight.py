"""A kept prompt that is watched: a cold run's bits, at the cost of the blocks that are watched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model.cache.page_pool import page_bytes
from bitlens.model.hooks.registry import has_key_axis, layer_of, same_bits
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.transformer import HookedTransformer
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_models import CONFIGS, random_model
from support.static_generation import static

LONG = {"n_ctx": 320}
PROMPT = [(7 * i * i + 3 * i) % 260 for i in range(150)]
N = 4
LOW = ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern")
"""Hooks that two of a model's three blocks reach."""


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", changes=LONG)


def cold(model: HookedTransformer, names: Any, first: int = 0) -> dict[str, torch.Tensor]:
    """Returns what `generate` captures, from a position on."""
    found = model.generate(PROMPT, max_new_tokens=N, min_new_tokens=N, capture=names).captured
    return {n: x[:, :, first:] if has_key_axis(n) else x[:, first:] for n, x in found.items()}


def asked(**options: Any) -> Request:
    return Request(PROMPT, max_new_tokens=N, min_new_tokens=N, **options)


def assert_captured(found: Completion, want: dict[str, torch.Tensor]) -> None:
    assert found.captured.keys() == want.keys()
    for name, x in found.captured.items():
        assert same_bits(x, want[name]), name


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_hook_of_the_lower_blocks(architecture: str) -> None:
    """Only the last token and the answer of a warm request in chunks run to the end."""
    model = random_model(architecture, dtype="bf16", changes=LONG)
    names = [name for name in model.hook_names if (layer_of(name) or 0) < 2][:-4]
    assert names[-1].startswith("blocks.1."), "nothing above the second block"
    want = cold(model, names)
    with Engine(model, token_budget=40) as engine:
        plain = engine.submit(asked()).result()
        before = engine.stats()
        found = engine.submit(asked(capture=names)).result()
        after = engine.stats()
    assert_captured(found, want)
    assert found.ids == plain.ids
    assert after.replayed - before.replayed == len(PROMPT) - 1
    assert after.tokens - before.tokens == N
    assert (found.usage.cached, found.usage.written) == (0, 1)


def test_no_block_runs_that_nobody_watches(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, int]] = []
    original = model.forward_pass.runner.run

    def counted(start: int, stop: int, resid_Td: torch.Tensor, run: Any) -> torch.Tensor:
        ran.extend((layer, run.batch.n_rows) for layer in range(start, stop))
        return original(start, stop, resid_Td, run)

    with Engine(model) as engine:
        engine.submit(asked()).result()
        monkeypatch.setattr(model.forward_pass.runner, "run", counted)
        engine.submit(asked(capture=LOW)).result()
    rows = [sum(n for layer, n in ran if layer == i) for i in range(3)]
    assert rows == [len(PROMPT) - 1 + N, len(PROMPT) - 1 + N, N]


def test_what_is_shown_was_read_from_the_pages_that_are_kept(model: HookedTransformer) -> None:
    """The control: values that the second chunk reads are moved, and it alone shows so."""
    want = cold(model, LOW)
    with Engine(model, token_budget=64) as engine:
        engine.submit(asked()).result()
        held = engine.cache.hold(PROMPT)
        engine.cache.pool.v[0, held.sequence.pages[0], 0] += 1
        engine.cache.release(held)
        found = engine.submit(asked(capture=LOW)).result()
    resid, name = found.captured[LOW[1]], LOW[1]
    assert same_bits(resid[:, :64], want[name][:, :64]), "the first chunk reads no kept page"
    assert not same_bits(resid[:, 64:128], want[name][:, 64:128])


@settings(max_examples=20, deadline=None)
@given(
    first=st.integers(0, len(PROMPT)),
    known=st.integers(1, len(PROMPT)),
    budget=st.integers(40, 200),
    names=st.sampled_from([LOW[:1], LOW[:2], LOW, ("unembed.hook_in",), ()]),
    scores=st.booleans(),
)
def test_from_any_position_on(
    model: HookedTransformer,
    first: int,
    known: int,
    budget: int,
    names: tuple[str, ...],
    scores: bool,
) -> None:
    """However much is kept and however it is cut; what lies before comes from the cache."""
    want = cold(model, names, first) if names else {}
    exact = model.logprobs(torch.tensor([PROMPT]))[0, first + 1 :]
    options: dict[str, Any] = {"capture": names, "prompt_logprobs": 0 if scores else None}
    with Engine(model, token_budget=budget) as engine:
        engine.submit(Request(PROMPT[:known], max_new_tokens=1)).result()
        found = engine.submit(asked(observe_from=first, **options)).result()
        hits = engine.stats().cache.hit_tokens
    assert_captured(found, want)
    there = min(known, len(PROMPT) - 1)
    whole_pass = (scores and first < len(PROMPT) - 1) or "unembed.hook_in" in names
    assert hits == (min(there, first) if whole_pass else there)
    looked = max(0, there - first) if names and not whole_pass else 0
    assert found.usage.cached == hits - looked
    if scores:
        assert found.prompt_logprobs is not None
        n_without = min(first + 1, len(PROMPT))
        assert found.prompt_logprobs[:n_without] == [None] * n_without
        rest = [entry[0] for entry in found.prompt_logprobs[n_without:] if entry is not None]
        assert same_bits(torch.tensor(rest), exact)


def test_rows_that_give_up_their_pages_look_again(model: HookedTransformer) -> None:
    prompts = [[(i * j + j) % 260 for i in range(100)] for j in range(1, 5)]
    options: dict[str, Any] = {"max_new_tokens": 60, "min_new_tokens": 60, "capture": LOW}
    want = [static(model, prompt, **options) for prompt in prompts]
    room = 9 * (page_bytes(model.config, torch.float32) + 1024)
    with Engine(model, cache_bytes=room, token_budget=64, max_running=4) as engine:
        handles = [engine.submit(Request(prompt, **options)) for prompt in prompts]
        for handle, each in zip(handles, want, strict=True):
            assert_captured(handle.result(), each.captured)
        stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.replayed > 0
    assert engine.cache.pool.n_references == 0


def test_without_room_to_look_again_a_prompt_is_computed(model: HookedTransformer) -> None:
    room = 4 * (page_bytes(model.config, torch.float32) + 1024)
    want = cold(model, LOW)
    with Engine(model, cache_bytes=room) as engine:
        plain = engine.submit(asked()).result()
        found = engine.submit(asked(capture=LOW)).result()
        assert_captured(found, want)
        assert found.ids == plain.ids == engine.submit(asked()).result().ids
        assert engine.stats().replayed == 0
    assert found.usage.cached == 0


def test_the_last_norm_is_seen_without_every_tokens_logits(model: HookedTransformer) -> None:
    rows: list[int] = []

    def counted(original: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        rows.append(len(x))
        return original(x, *rest, **named)

    tokens, name = torch.tensor([PROMPT]), "unembed.hook_in"
    whole, kept = model.run_with_cache(tokens, name)
    with model.override("unembed", counted):
        found = model.generate(PROMPT, max_new_tokens=1, capture=[name, "ln_final.hook_scale"])
    assert rows == [1]
    assert same_bits(found.captured[name], kept[name])
    assert found.tokens[0, -1] == whole[0, -1].argmax()


@pytest.mark.parametrize("first", [-1, len(PROMPT) + 1])
def test_positions_that_are_not_in_the_prompt(model: HookedTransformer, first: int) -> None:
    with Engine(model) as engine, pytest.raises(ValueError, match="observe_from"):
        engine.submit(asked(observe_from=first, capture=LOW))
