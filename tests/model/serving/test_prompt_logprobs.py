"""Log-probabilities of a prompt: the forward pass's bits, however the engine reads it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.model.cache.page_pool import page_bytes
from bitlens.model.hooks.registry import same_bits
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.transformer import HookedTransformer
from support.random_models import random_model

PROMPT = [(7 * i * i + 3 * i) % 260 for i in range(90)]


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


def own(found: Completion) -> torch.Tensor:
    assert found.prompt_logprobs is not None
    first, *rest = found.prompt_logprobs
    assert first is None
    return torch.tensor([entry[0] for entry in rest if entry is not None])


def expected(model: HookedTransformer, prompt: list[int], temperature: float = 1.0) -> torch.Tensor:
    return model.logprobs(torch.tensor([prompt]), temperature=temperature)[0, 1:].float()


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("llama", "fp32"),
        ("llama", "bf16"),
        ("llama", "bf16_weights"),
        ("llama", "hf_bf16"),
        ("gemma2", "bf16"),
        ("qwen2", "fp32"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_they_are_the_forward_passes(name: str, policy: str, temperature: float) -> None:
    """Alone, cold and warm, in chunks, among others; and what is best is what torch finds."""
    model = random_model(name, dtype=policy)
    exact = expected(model, PROMPT, temperature or 1.0)
    asked: dict[str, Any] = {"max_new_tokens": 3, "temperature": temperature, "seed": 1}
    with Engine(model, token_budget=40, max_running=8) as engine:
        cold = engine.submit(Request(PROMPT, prompt_logprobs=4, **asked)).result()
        warm = engine.submit(Request(PROMPT, prompt_logprobs=4, **asked)).result()
        shared = [engine.submit(Request([*PROMPT[:70], i], **asked)) for i in range(5)]
        among = engine.submit(Request(PROMPT, prompt_logprobs=0, **asked))
        plain = engine.submit(Request(PROMPT, **asked)).result()
        for handle in shared:
            handle.result()
        assert plain.usage.cached > 0
        for found in (cold, warm, among.result()):
            assert same_bits(own(found), exact)
            assert found.ids == plain.ids
            assert found.usage.cached == 0
        assert plain.prompt_logprobs is None
    logits = model(torch.tensor([PROMPT]))[0, :-1].float()
    for entry, row in zip(cold.prompt_logprobs[1:], logits, strict=True):  # type: ignore[index]
        assert entry is not None
        _, ids, best = entry
        assert row[ids].tolist() == row.topk(len(ids)).values.tolist()
        likely = int((torch.log_softmax(row.double() / (temperature or 1.0), 0) > -20).sum())
        assert len(ids) >= min(4, likely) > 0
        assert best == sorted(best, reverse=True)
    assert among.result().prompt_logprobs[1][1:] == ([], [])  # type: ignore[index]


def test_the_chosen_tokens_value_stands_among_the_best() -> None:
    """Whoever asks whether a token is the likeliest compares bits."""
    model = random_model("llama", dtype="bf16")
    greedy = model.generate(torch.tensor([[5]]), max_new_tokens=30, temperature=0).tokens[0]
    prompt = greedy.tolist()
    with Engine(model) as engine:
        found = engine.submit(Request(prompt, max_new_tokens=1, prompt_logprobs=1)).result()
    for token, entry in zip(prompt[1:], found.prompt_logprobs[1:], strict=True):  # type: ignore[index]
        assert entry is not None
        assert (entry[1], entry[2]) == ([token], [entry[0]])


def test_preempted_prompts_are_scored_once() -> None:
    model = random_model("llama", changes={"n_ctx": 320})
    prompts = [[(i * j + j) % 260 for i in range(150)] for j in range(1, 5)]
    room = 9 * (page_bytes(model.config, torch.float32) + 1024)
    with Engine(model, cache_bytes=room, token_budget=64, max_running=4) as engine:
        handles = [engine.submit(Request(p, max_new_tokens=60, prompt_logprobs=2)) for p in prompts]
        for prompt, handle in zip(prompts, handles, strict=True):
            assert same_bits(own(handle.result()), expected(model, prompt))
        assert engine.stats().preemptions > 0


def test_samples_monitors_and_captures_beside_them() -> None:
    model = random_model("llama")
    name = "blocks.1.hook_resid_post"
    with Engine(model) as engine:
        several = engine.submit(
            Request(PROMPT, max_new_tokens=2, n=3, temperature=1.0, seed=0, prompt_logprobs=1)
        ).results()
        captured = engine.submit(
            Request(PROMPT, max_new_tokens=2, capture=[name], prompt_logprobs=1)
        ).result()
        one = engine.submit(Request([5], max_new_tokens=1, prompt_logprobs=3)).result()
    assert same_bits(own(several[0]), expected(model, PROMPT))
    assert [each.prompt_logprobs for each in several[1:]] == [None, None]
    assert set(captured.captured) == {name}
    assert same_bits(own(captured), expected(model, PROMPT))
    assert one.prompt_logprobs == [None]


@pytest.mark.parametrize("n", [-1, 2000])
def test_bad_numbers_are_refused(n: int) -> None:
    with (
        Engine(random_model("llama")) as engine,
        pytest.raises(ValueError, match="prompt_logprobs"),
    ):
        engine.submit(Request([1, 2], prompt_logprobs=n))
