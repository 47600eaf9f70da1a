"""Several prompts in one request, and prompts echoed with their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from bitlens.model.hooks.registry import same_bits
from bitlens.model.transformer import HookedTransformer
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model

TEXTS = ["once upon a time", "xy", "the end of it all, "]


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    tokenizer = byte_tokenizer(TEMPLATE)
    return random_model("llama", tokenizer=tokenizer, changes={"n_ctx": 256})


@pytest.fixture(scope="module")
def server(model: HookedTransformer) -> Iterator[Server]:
    yield from serving({"only": model})


@pytest.fixture
def complete(server: Server) -> Any:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    def run(prompt: Any, **options: Any) -> Any:
        return client.completions.create(
            model="tiny", prompt=prompt, **{"max_tokens": 5, "temperature": 0, **options}
        )

    return run


def ids(model: HookedTransformer, text: str) -> list[int]:
    found: list[int] = model.to_tokens(text)[0].tolist()
    return found


@pytest.mark.parametrize("as_ids", [False, True])
def test_several_prompts_are_answered_as_each_alone(
    complete: Any, model: HookedTransformer, as_ids: bool
) -> None:
    prompts = [ids(model, text) if as_ids else text for text in TEXTS]
    options = {"n": 2, "temperature": 0.9, "seed": 3, "logprobs": 2}
    together = complete(prompts, **options)
    assert [choice.index for choice in together.choices] == list(range(6))
    alone = [complete(prompt, **options) for prompt in prompts]
    each = [choice for answer in alone for choice in answer.choices]
    assert [(c.text, c.logprobs, c.finish_reason) for c in together.choices] == [
        (c.text, c.logprobs, c.finish_reason) for c in each
    ]
    assert len({choice.text for choice in each}) > 1
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(together.usage, name) == sum(getattr(a.usage, name) for a in alone)


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_echo_gives_the_forward_passes_bits(
    complete: Any, model: HookedTransformer, as_ids: bool, max_tokens: int
) -> None:
    prompts = [ids(model, text) if as_ids else text for text in TEXTS]
    found = complete(prompts, max_tokens=max_tokens, logprobs=2, echo=True)
    plain = complete(prompts, max_tokens=3, logprobs=2)
    for text, choice, answer in zip(TEXTS, found.choices, plain.choices, strict=True):
        prompt = ids(model, text)
        n, logprobs = len(prompt), choice.logprobs
        own = model.logprobs(torch.tensor([prompt]))[0, 1:]
        assert logprobs.token_logprobs[0] is logprobs.top_logprobs[0] is None
        assert same_bits(torch.tensor(logprobs.token_logprobs[1:n]), own)
        # Parts of characters share a name.
        assert all(1 <= len(best) <= 2 for best in logprobs.top_logprobs[1:n])
        assert choice.text == text + (answer.text if max_tokens else "")
        rest = {name: value[n:] for name, value in logprobs.model_dump().items()}
        if not max_tokens:
            assert not any(rest.values())
            continue
        assert rest["token_logprobs"] == answer.logprobs.token_logprobs
        assert rest["tokens"] == answer.logprobs.tokens
        offsets, tokens = logprobs.text_offset, logprobs.tokens
        assert offsets == [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    assert found.usage.completion_tokens == (9 if max_tokens else 0)


def test_echo_without_logprobs_is_text_alone(complete: Any) -> None:
    (choice,) = complete("abc", echo=True, max_tokens=0).choices
    assert (choice.text, choice.logprobs, choice.finish_reason) == ("abc", None, "length")


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        (["a", "b"], {"stream": True}, "stream"),
        ("a", {"stream": True, "echo": True}, "stream"),
        ("a", {"max_tokens": 0}, "max_tokens"),
        ([], {}, "prompt"),
        ([[]], {}, "prompt"),
        ([[1, 2], [9999]], {}, "vocabulary"),
        (["a", [1]], {}, "prompt"),
        (["a"] * 129, {}, "prompt"),
        (["a", "b" * 300], {}, "context"),
    ],
)
def test_what_is_not_served_is_named(
    server: Server, complete: Any, prompt: Any, options: Any, said: str
) -> None:
    """And leaves nothing under way."""
    with pytest.raises(openai.BadRequestError, match=said):
        list(complete(prompt, **options))
    assert complete("a").usage.completion_tokens == 5
    assert server.engine.stats().running == 0
