"""Unwatched generation runs in the engine's batch, and is in everything what static passes give."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Monitor
from bitlens.model import HookedTransformer
from bitlens.model.generation import GenerateOutput
from bitlens.model.hooks.registry import HookPoint
from hypothesis import given
from hypothesis import strategies as st
from parallel.sharded import on_ranks
from support.random_models import CONFIGS, byte_tokenizer, random_model
from support.random_probes import random_probe
from support.static_generation import batch_steps, static, static_passes

PROMPTS = [[5], [1, 2, 3, 4], [9, 8], list(range(70)), [5, 6]]


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer())


def content(out: GenerateOutput) -> dict[str, Any]:
    """Returns every field, tensors as their bits."""
    found = {each.name: getattr(out, each.name) for each in fields(out)}
    return {
        name: (x.dtype, x.shape, x.view(torch.uint8).tolist() if x.numel() else [])
        if isinstance(x, torch.Tensor)
        else x
        for name, x in found.items()
    }


def outcome(run: Any, model: HookedTransformer, prompt: Any, **options: Any) -> list[Any]:
    """Returns all that a caller sees of a call, in order: stop functions' arguments, pieces, and
    the output, or the error with what was written until then."""
    seen: list[Any] = []
    raises_at, kind = options.pop("raises_at", -1), options.pop("kind", RuntimeError)

    def see(*what: Any) -> None:
        seen.append(what)
        if len(seen) == raises_at:
            raise kind("enough")

    def stop(ids: list[int], text: str) -> bool:
        see("stop", ids, text)
        return len(ids) > 2 and sum(ids) % 5 == 0

    if options.pop("functions", False):
        options["stop"] = [stop, "e"]
    if options.pop("streams", False):
        options["stream"] = lambda *piece: see("piece", *piece)
    try:
        out = run(model, prompt, **options)
    except (Exception, KeyboardInterrupt) as error:
        written = getattr(error, "generated", None)
        return [*seen, type(error), str(error), None if written is None else content(written)]
    return [*seen, content(out)]


def generated(model: HookedTransformer, prompt: Any, **options: Any) -> GenerateOutput:
    """`generate`. Raises AssertionError unless it ran in the batch, as far as it came."""
    with batch_steps() as steps:
        out: GenerateOutput = model.generate(prompt, **options)
    assert len(steps) == out.n_steps
    return out


CALLS = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=4),
        "max_new_tokens": st.integers(1, 9),
        "n": st.integers(1, 3),
        "temperature": st.sampled_from([0.0, 0.7, 2.0]),
        "seed": st.integers(0, 9),
    },
    optional={
        "top_k": st.integers(1, 40),
        "top_p": st.sampled_from([0.3, 0.9]),
        "repetition_penalty": st.sampled_from([0.8, 1.4]),
        "presence_penalty": st.just(0.5),
        "no_repeat_ngram_size": st.integers(1, 3),
        "logit_bias": st.just({7: 3.0, 8: -2.5}),
        "logprobs": st.integers(0, 3),
        "functions": st.booleans(),
        "streams": st.booleans(),
        "raises_at": st.integers(1, 30),
        "kind": st.sampled_from([RuntimeError, KeyboardInterrupt]),
    },
)


@given(CALLS)
def test_every_call_is_as_in_static_passes(model: HookedTransformer, call: dict[str, Any]) -> None:
    assert outcome(generated, model, **dict(call)) == outcome(static, model, **dict(call))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_of_every_architecture(architecture: str, dtype: str) -> None:
    model = random_model(architecture, dtype=dtype, tokenizer=byte_tokenizer())
    call: dict[str, Any] = {
        "max_new_tokens": 8,
        "temperature": 1.0,
        "seed": 2,
        "n": 2,
        "logprobs": 1,
    }
    prompts = [PROMPTS[i] for i in (3, 1, 3, 0)]
    assert outcome(generated, model, prompts, **call) == outcome(static, model, prompts, **call)


def test_logits_moved_by_an_ulp_are_found(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: log-probabilities are compared to the last bit."""
    call: dict[str, Any] = {"max_new_tokens": 3, "logprobs": 0}
    want, forward = outcome(static, model, PROMPTS, **call), model.forward_last_slice

    def moved(*args: Any) -> torch.Tensor:
        logits_BV = forward(*args)
        best = logits_BV[-1].argmax()
        logits_BV[-1, best] = torch.nextafter(logits_BV[-1, best], torch.tensor(torch.inf))
        return logits_BV

    monkeypatch.setattr(model, "forward_last_slice", moved)
    found = outcome(generated, model, PROMPTS, **call)
    assert found[-1]["tokens"] == want[-1]["tokens"]
    assert found[-1]["logprobs"] != want[-1]["logprobs"]


@pytest.mark.parametrize("fault", ["nan", OSError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 2])
def test_passes_that_fail_fail_alike(
    model: HookedTransformer, monkeypatch: pytest.MonkeyPatch, fault: Any, at: int
) -> None:
    forward, calls = model.forward_last_slice, 0

    def failing(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls <= at:
            return forward(*args)
        if fault != "nan":
            raise fault("the power went out")
        logits_BV = forward(*args)
        logits_BV[1] = torch.nan
        return logits_BV

    monkeypatch.setattr(model, "forward_last_slice", failing)
    call: dict[str, Any] = {"max_new_tokens": 6, "functions": True, "streams": True}
    found = outcome(HookedTransformer.generate, model, PROMPTS, **call)
    calls = 0
    assert found == outcome(static, model, PROMPTS, **call)
    assert found[-1]["n_steps"] == at + (fault == "nan")
    assert found[-1]["finish_reason"].count("error") > 2


@pytest.mark.parametrize("prompts", [[[]], [[1, 2], []], [], [[1], [2**70]], [[1], [5000]]])
def test_bad_prompts_are_refused_alike(model: HookedTransformer, prompts: Any) -> None:
    found = outcome(HookedTransformer.generate, model, prompts, max_new_tokens=2)
    assert found == outcome(static, model, prompts, max_new_tokens=2)
    assert issubclass(found[0], Exception)


@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_hook_that_comes_in_on_the_way_sees_static_passes(
    model: HookedTransformer, at: int
) -> None:
    """Rows that end from then on stay as padding, and every pass says where it stands."""

    def watched(run: Any) -> tuple[list[Any], list[Any]]:
        passes: list[Any] = []
        calls = 0

        def read(tensor: torch.Tensor, hook: HookPoint) -> None:
            assert hook.generation is not None
            where = hook.generation.index, [hook.generation.tokens(b) for b in range(5)]
            passes.append((where, tensor.shape, tensor.view(torch.int32).tolist()))

        def stop(ids: list[int], text: str) -> bool:
            nonlocal calls
            calls += 1
            if calls == at:
                model.add_hook("blocks.1.attn.hook_pattern", read)
            return len(ids) > 1 + ids[0] % 4

        try:
            return passes, outcome(run, model, PROMPTS, max_new_tokens=7, stop=stop)
        finally:
            model.reset_hooks()

    with batch_steps() as steps:
        found = watched(HookedTransformer.generate)
    assert found == watched(static)
    assert len(found[0]) > 0
    assert len(steps) + len(found[0]) == found[1][-1]["n_steps"]


def test_who_runs_in_the_batch(model: HookedTransformer) -> None:
    """Whatever looks into passes has them in its own shape, and so has the torch backend."""
    call: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4}
    probe = random_probe(model, "blocks.1.hook_resid_post", "last", 0)
    reference = random_model("mistral", tokenizer=byte_tokenizer(), backend="torch")
    hook = model.hooks([("hook_embed", lambda tensor, hook: None)])
    override = model.override(
        "ln_final", lambda original, *args, **kwargs: original(*args, **kwargs)
    )
    nothing = contextlib.nullcontext()
    watching: list[tuple[HookedTransformer, Any, dict[str, Any]]] = [
        (model, hook, {}),
        (model, override, {}),
        (model, nothing, {"capture": "hook_embed"}),
        (model, nothing, {"monitors": [Monitor(probe)]}),
        (reference, nothing, {}),
    ]
    with batch_steps() as steps:
        for each, block, options in watching:
            with block:
                each.generate(PROMPTS, **call, **options)
        assert steps == []
        model.generate(PROMPTS, **call)
    assert steps == [5] * 4


def test_rows_that_ended_are_in_no_pass(model: HookedTransformer) -> None:
    with batch_steps() as steps:
        out = model.generate(
            PROMPTS, max_new_tokens=6, stop=lambda ids, text: len(ids) > ids[0] % 5
        )
    assert steps == [sum(n > i for n in out.n_new) for i in range(max(out.n_new))]
    assert steps[-1] < 5


@pytest.mark.parametrize("size", [2, 3])
def test_over_ranks(size: int) -> None:
    call: dict[str, Any] = {
        "max_new_tokens": 6,
        "temperature": 1.2,
        "seed": 4,
        "logprobs": 2,
        "n": 2,
    }

    def run(model: HookedTransformer) -> Any:
        return content(model.generate(PROMPTS, **call))

    with static_passes():
        want = on_ranks(size, run)
    with batch_steps() as steps:
        assert on_ranks(size, run) == want
    assert len(steps) == size * want[0]["n_steps"]


def test_threads_that_generate_at_the_same_time_do_not_meet(model: HookedTransformer) -> None:
    """Half of them watch, which is their own affair."""
    calls = [{"prompt": [p], "max_new_tokens": 8, "temperature": 1.0, "seed": i}
             for i, p in enumerate(PROMPTS * 2)]  # fmt: skip
    want = [outcome(static, model, **call) for call in calls]

    def run(i: int) -> list[Any]:
        hooks = [("hook_embed", lambda tensor, hook: None)] if i % 2 else []
        with model.hooks(hooks):
            return outcome(HookedTransformer.generate, model, **calls[i])

    with batch_steps() as steps, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(len(calls)))) == want
    assert len(steps) == sum(each[-1]["n_steps"] for each in want[::2])
