"""Sampler parameters, log-probabilities, stops and hooks of `generate`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from bitlens.model import HookedTransformer
from bitlens.model.generation.chooser import repeating
from bitlens.model.hooks.registry import HookPoint
from bitlens.model.sampling import SamplingParams, sample
from hypothesis import given
from hypothesis import strategies as st
from support.random_models import EOS, byte_tokenizer, random_model

PROMPT = list(b"abcabcab")
N = 24


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer())


def stepwise(model: HookedTransformer, n: int, edit: Any) -> list[int]:
    """Greedy decoding without a cache, `edit(ids [1, P], logits [1, V])` before each choice."""
    ids = torch.tensor([PROMPT])
    for _ in range(n):
        logits = edit(ids, model(ids)[:, -1].float())
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        if int(ids[0, -1]) == EOS:
            break
    return ids[0, len(PROMPT) :].tolist()


def test_repetition_penalty_and_ngrams_are_those_of_transformers(model: HookedTransformer) -> None:
    """The peer's processors are called on our logits; plain decoding repeats where they do not."""
    from transformers.generation.logits_process import (
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
    )

    plain = model.generate(PROMPT, max_new_tokens=N).tokens[0, len(PROMPT) :].tolist()
    for processor, options in (
        (RepetitionPenaltyLogitsProcessor(1.7), {"repetition_penalty": 1.7}),
        (NoRepeatNGramLogitsProcessor(2), {"no_repeat_ngram_size": 2}),
        (NoRepeatNGramLogitsProcessor(1), {"no_repeat_ngram_size": 1}),
    ):
        out = model.generate(PROMPT, max_new_tokens=N, **options)  # type: ignore[arg-type]
        new = out.tokens[0, len(PROMPT) :].tolist()
        assert new == stepwise(model, N, processor)
        assert new != plain


@given(st.lists(st.integers(0, 3), min_size=1, max_size=14), st.integers(1, 4))
def test_banned_tokens_are_those_of_transformers(ids: list[int], n: int) -> None:
    from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

    scores = NoRepeatNGramLogitsProcessor(n)(torch.tensor([ids]), torch.zeros(1, 5))
    assert repeating(ids, n) == set(torch.where(scores[0].isneginf())[0].tolist())


def test_penalties_count_new_tokens(model: HookedTransformer) -> None:
    def edit(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        for token, count in Counter(ids[0, len(PROMPT) :].tolist()).items():
            logits[0, token] -= 0.75 * count + 0.5
        logits[0, 7] += 2.0
        return logits

    options: dict[str, Any] = {"frequency_penalty": 0.75, "presence_penalty": 0.5}
    out = model.generate(PROMPT, max_new_tokens=N, logit_bias={7: 2.0}, **options)
    assert out.tokens[0, len(PROMPT) :].tolist() == stepwise(model, N, edit)
    allowed = model.generate(PROMPT, max_new_tokens=N, temperature=3.0, allowed_token_ids=[5, 9])
    assert set(allowed.tokens[0, len(PROMPT) :].tolist()) == {5, 9}


def test_filters_reach_the_sampler(model: HookedTransformer) -> None:
    """Each token is the one that the sampler draws from the same logits with the same filters."""
    filters: dict[str, Any] = {"temperature": 1.5, "seed": 11, "min_p": 0.4, "typical_p": 0.8}
    out = model.generate(PROMPT, max_new_tokens=8, **filters)
    for i in range(out.n_new[0]):
        end = len(PROMPT) + i
        logits = model(out.tokens[:, :end])[:, -1]
        chosen = sample(logits, SamplingParams(**filters), positions=[end], draws=[0])
        assert int(chosen.tokens) == int(out.tokens[0, end])


def test_logprobs(model: HookedTransformer) -> None:
    rows = [PROMPT, [1, 2, 3]]
    stop = int(model.generate(rows[1], max_new_tokens=2).tokens[0, -1])
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": stop, "logprobs": 3}
    out = model.generate(rows, **options)
    assert out.logprobs is not None
    assert out.top_ids is not None
    assert out.top_logprobs is not None
    assert out.logprobs.shape == (2, max(out.n_new))
    assert out.top_ids.shape == out.top_logprobs.shape == (2, max(out.n_new), 3)
    start = out.tokens.shape[1] - max(out.n_new)
    for b, prompt in enumerate(rows):
        for i in range(max(out.n_new)):
            if i >= out.n_new[b]:
                assert out.logprobs[b, i].isnan()
                assert (out.top_ids[b, i] == -1).all()
                continue
            ids = [*prompt, *out.tokens[b, start : start + i].tolist()]
            exact = torch.log_softmax(model(torch.tensor([ids]))[0, -1].double(), -1)
            token = int(out.tokens[b, start + i])
            # The sampler rounds the logarithm to fp32 once, from sums of 2^-40 relative error.
            assert abs(float(out.logprobs[b, i]) - float(exact[token])) <= 2**-22 * 8
            assert out.top_ids[b, i].tolist() == exact.topk(3).indices.tolist()
            assert token == int(out.top_ids[b, i, 0])
    plain = model.generate(rows, max_new_tokens=5, stop=stop)
    assert torch.equal(plain.tokens, out.tokens)
    assert plain.logprobs is None
    assert plain.top_ids is None
    assert model.generate(rows, **options | {"logprobs": 0}).top_ids is None


def test_finish_reasons_and_steps(model: HookedTransformer) -> None:
    first = int(model.generate([1, 2], max_new_tokens=1).tokens[0, -1])
    out = model.generate([[1, 2], [3, 4]], max_new_tokens=4, stop=first)
    assert out.finish_reason == ["stop", "length"]
    assert out.n_steps == 4


def test_a_function_stops_its_row(model: HookedTransformer) -> None:
    seen: list[tuple[list[int], str]] = []

    def stop(ids: list[int], text: str) -> bool:
        seen.append((ids, text))
        return len(ids) == 3

    out = model.generate("ab", max_new_tokens=9, stop=[stop, "never"])
    new = out.tokens[0, 2:].tolist()
    assert [ids for ids, _ in seen] == [new[:1], new[:2], new[:3]]
    assert out.finish_reason == ["stop"]
    assert out.text[0].startswith(seen[-1][1])
    late = model.generate("ab", max_new_tokens=9, min_new_tokens=5, stop=lambda ids, text: True)
    assert late.n_new == [5]


def test_every_row_streams(model: HookedTransformer) -> None:
    pieces: dict[int, str] = {0: "", 1: ""}

    def take(row: int, piece: str) -> None:
        pieces[row] += piece

    out = model.generate(["ab", "c"], max_new_tokens=6, stream=take)
    assert [pieces[0], pieces[1]] == out.text


def test_hooks_know_where_a_generation_stands(model: HookedTransformer) -> None:
    steps: list[tuple[int, list[int]]] = []

    def read(tensor: torch.Tensor, hook: HookPoint) -> None:
        assert hook.generation is not None
        steps.append((hook.generation.index, hook.generation.tokens(1)))

    with model.hooks([("blocks.0.hook_resid_post", read)]):
        out = model.generate([[1], [2, 3]], max_new_tokens=3, min_new_tokens=3)
    row = out.tokens[1].tolist()
    assert steps == [(0, row[:2]), (1, row[:3]), (2, row[:4])]
    outside: list[object] = []
    model.run_with_hooks(
        torch.tensor([[1]]), [("hook_embed", lambda x, hook: outside.append(hook.generation))]
    )
    assert outside == [None]


def test_rows_that_ended_leave_the_batch_and_move_no_bit() -> None:
    """A hook function that reads keeps them in: its tokens and captures are the same bits."""
    model = random_model("mistral", tokenizer=byte_tokenizer())
    prompts = [[1, 2], [3, 4, 5], [9]]
    widths: list[int] = []
    last = model.forward_last_slice

    def counted(tokens: Any, *rest: Any) -> torch.Tensor:
        widths.append(len(tokens))
        return last(tokens, *rest)

    model.forward_last_slice = counted  # type: ignore[method-assign]
    names = ["blocks.1.hook_resid_post", "blocks.0.attn.hook_pattern", "hook_tokens"]
    options: dict[str, Any] = {
        "max_new_tokens": 7,
        "stop": lambda ids, text: len(ids) == ids[0] % 5 + 1,
        "capture": names,
        "temperature": 2.0,
        "seed": 4,
    }
    alone = model.generate(prompts, **options)
    left, widths[:] = list(widths), []
    with model.hooks([("blocks.0.hook_resid_pre", lambda tensor, hook: None)]):
        watched = model.generate(prompts, **options)
    assert set(widths) == {3}
    assert left == [sum(n > i for n in alone.n_new) for i in range(max(alone.n_new))]
    assert left[-1] < 3
    assert torch.equal(alone.tokens, watched.tokens)
    for name in names:
        a, b = alone.captured[name], watched.captured[name]
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_samples_of_a_prompt_read_it_once_and_move_no_bit(dtype: str) -> None:
    """A hook function that reads has every row read its own: its tokens are the same bits."""
    model = random_model("mistral", dtype=dtype, tokenizer=byte_tokenizer())
    prompts = [list(range(70)), [3, 4, 5], list(range(70))]
    passed: list[int] = []
    last = model.forward_last_slice

    def counted(tokens: Any, mask: Any, *rest: Any) -> torch.Tensor:
        passed.append(int(tokens.numel() if mask is None else mask.sum()))
        return last(tokens, mask, *rest)

    model.forward_last_slice = counted  # type: ignore[method-assign]
    options: dict[str, Any] = {
        "max_new_tokens": 7, "min_new_tokens": 7, "temperature": 2.0, "seed": 4, "n": 3,
        "logprobs": 2,
    }  # fmt: skip
    shared = model.generate(prompts, **options)
    assert passed == [70 + 3, *[9] * 6]
    passed.clear()
    with model.hooks([("blocks.0.hook_resid_pre", lambda tensor, hook: None)]):
        each = model.generate(prompts, **options)
    assert passed == [3 * (70 + 3 + 70), *[9] * 6]
    assert torch.equal(shared.tokens, each.tokens)
    assert shared.logprobs is not None
    assert each.logprobs is not None
    assert torch.equal(shared.logprobs, each.logprobs)
    assert len({tuple(row) for row in shared.tokens[:3].tolist()}) == 3


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_what_was_written(
    model: HookedTransformer, kind: type[BaseException]
) -> None:
    whole = model.generate("ab", max_new_tokens=6, min_new_tokens=6)

    def fail(tensor: torch.Tensor, hook: HookPoint) -> None:
        assert hook.generation is not None
        if hook.generation.index == 3:
            raise kind("enough")

    with (
        model.hooks([("blocks.1.hook_resid_post", fail)]),
        pytest.raises(kind, match="enough") as raised,
    ):
        model.generate("ab", max_new_tokens=6, min_new_tokens=6)
    kept = raised.value.generated  # type: ignore[attr-defined]
    assert kept.n_new == [3]
    assert kept.finish_reason == ["error"]
    assert torch.equal(kept.tokens, whole.tokens[:, :5])
    assert whole.text[0].startswith(kept.text[0])


def test_bad_options_are_named(model: HookedTransformer) -> None:
    for message, options in (
        ("no_repeat_ngram_size = -1", {"no_repeat_ngram_size": -1}),
        ("min_p", {"min_p": 2.0}),
        ("repetition_penalty", {"repetition_penalty": 0.0}),
        ("logprobs", {"logprobs": 5000}),
        ("allowed_token_ids", {"allowed_token_ids": [-3]}),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate("a", **options)  # type: ignore[arg-type]
