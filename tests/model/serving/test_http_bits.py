"""The bits of answers over HTTP: both clients, streamed and not, alone and among others."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import anthropic
import openai
import pytest
from bitlens.model.serving import Engine, Request
from bitlens.model.transformer import HookedTransformer
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    """One whose tokens are in doubt: where all are near certain, no draw and no bit shows."""
    tokenizer = byte_tokenizer(TEMPLATE)
    return random_model("mistral", tokenizer=tokenizer, changes={"n_ctx": 512})


@pytest.fixture(scope="module")
def server(model: HookedTransformer) -> Iterator[Server]:
    yield from serving({"only": model})


def conversations(n: int) -> list[list[dict[str, str]]]:
    draw = random.Random(0)
    words = ["Once", "upon", "a", "time", "there", "was", "a", "model"]
    return [
        [{"role": "user", "content": " ".join(draw.choices(words, k=1 + i % 9))}] for i in range(n)
    ]


def alone(model: HookedTransformer, messages: Any, seed: int) -> tuple[list[int], list[float], str]:
    """Returns `generate`'s answer."""
    found = model.generate(
        [messages], max_new_tokens=12, temperature=1.0, top_p=0.9, seed=seed, logprobs=0
    )
    n = found.n_new[0]
    assert found.logprobs is not None
    start = found.tokens.shape[1] - n
    return found.tokens[0, start:].tolist(), found.logprobs[0, :n].tolist(), found.text[0]


EXTRAS = {"return_token_ids": True}


@cache
def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none")


@cache
def anthropic_client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="none")


def by_openai(server: Server, messages: Any, seed: int, stream: bool) -> tuple[Any, ...]:
    client = openai_client(server.url)
    options: dict[str, Any] = {
        "model": "tiny", "messages": messages, "max_tokens": 12, "seed": seed, "top_p": 0.9,
        "extra_body": EXTRAS,
    }  # fmt: skip
    if not stream:
        (choice,) = client.chat.completions.create(**options).choices
        extra = choice.model_extra
        return extra["token_ids"], extra["token_logprobs"], choice.message.content
    ids, text, logprobs = [], "", None
    for chunk in client.chat.completions.create(stream=True, **options):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        if choice.finish_reason is None:
            ids += (choice.model_extra or {}).get("token_ids", [])
        else:
            logprobs = choice.model_extra["token_logprobs"]
    return ids, logprobs, text


def by_anthropic(server: Server, messages: Any, seed: int, stream: bool) -> tuple[Any, ...]:
    client = anthropic_client(server.url)
    options: dict[str, Any] = {
        "model": "tiny", "messages": messages, "max_tokens": 12,
        "extra_body": {**EXTRAS, "seed": seed, "top_p": 0.9},
    }  # fmt: skip
    if not stream:
        message = client.messages.create(**options)
        extra = message.model_extra
        return extra["token_ids"], extra["token_logprobs"], message.content[0].text
    text, ended = "", None
    for event in client.messages.create(stream=True, **options):
        if event.type == "content_block_delta":
            text += event.delta.text
        if event.type == "message_delta":
            ended = event.delta.model_extra
    return ended["token_ids"], ended["token_logprobs"], text


Answers = list[tuple[list[int], bytes, str]]


def as_bits(answer: tuple[Any, ...]) -> tuple[list[int], bytes, str]:
    """An answer with its log-probabilities as the fp32 that they were."""
    ids, logprobs, text = answer
    return ids, struct.pack(f"<{len(logprobs)}f", *logprobs), text


WAYS = [(by, stream) for by in (by_openai, by_anthropic) for stream in (False, True)]


def through_http(server: Server, asked: list[Any], at_a_time: int, seed: int) -> list[Answers]:
    """Returns every way's answers, all of them asked in random order, so many at a time."""
    work = [(i, way) for way in range(len(WAYS)) for i in range(len(asked))]
    random.Random(seed).shuffle(work)

    def ask(each: tuple[int, int]) -> tuple[list[int], bytes, str]:
        by, stream = WAYS[each[1]]
        return as_bits(by(server, asked[each[0]], each[0], stream))

    with ThreadPoolExecutor(at_a_time) as pool:
        found = dict(zip(work, pool.map(ask, work), strict=True))
    return [[found[i, way] for i in range(len(asked))] for way in range(len(WAYS))]


def from_python(model: HookedTransformer, asked: list[Any]) -> Answers:
    """Returns an engine's answers, all at once."""
    with Engine(model, token_budget=60) as engine:
        handles = [
            engine.submit(
                Request(
                    messages, max_new_tokens=12, temperature=1.0, top_p=0.9, seed=seed, logprobs=0
                )
            )
            for seed, messages in enumerate(asked)
        ]
        found = [handle.result() for handle in handles]
    return [as_bits((c.ids, [p for p, *_ in c.logprobs or ()], c.text)) for c in found]


def test_bits_through_http(server: Server) -> None:
    """Both clients, streamed and not, 16 at once in random order, cold and warm."""
    asked = conversations(16)
    want = [as_bits(alone(server.model, messages, i)) for i, messages in enumerate(asked)]
    assert from_python(server.model, asked) == want
    assert through_http(server, asked, 16, seed=1) == [want] * len(WAYS)
    assert server.engine.stats().cache.hit_tokens > 0
    # The control: another seed is another answer, and answers differ.
    assert as_bits(by_openai(server, asked[3], 4, False)) != want[3]
    assert len({tuple(ids) for ids, _, _ in want}) == 16


@pytest.mark.nightly
def test_forty_requests_cold_warm_and_restarted(model: HookedTransformer) -> None:
    """Each alone, and among 31 others; cold, warm, and by a server that was started again."""
    asked = conversations(40)
    want = [as_bits(alone(model, messages, i)) for i, messages in enumerate(asked)]
    assert from_python(model, asked) == want
    for _ in range(2):
        for server in serving({"only": model}, max_waiting=1024):
            for at_a_time in (32, 1, 32):
                assert through_http(server, asked, at_a_time, seed=at_a_time) == [want] * len(WAYS)
