"""Answers that fit a schema or call a tool, by a mask before the exact sampler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bitlens.model.serving import Completion, Engine, Request
from bitlens.model.text.tools import FORMATS, CallParser, Tool, ToolCall, ToolChoice
from bitlens.model.text.tools.grammar import call_grammar
from bitlens.model.transformer import HookedTransformer
from support.random_models import byte_tokenizer, random_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": {"enum": ["small", "large"]},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["size", "n"],
    "additionalProperties": False,
}
TOOLS = [
    Tool("add", "", {**SCHEMA, "properties": {"size": {"enum": ["s"]}, "n": {"enum": [1, 2]}}}),
    Tool("stop", "", {"type": "object", "properties": {}, "additionalProperties": False}),
]


@pytest.fixture(autouse=True)
def _one_torch_thread(_settings_restored: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer(), changes={"n_ctx": 400})


@pytest.fixture
def engine(model: HookedTransformer) -> Iterator[Engine]:
    with Engine(model, max_running=8, token_budget=60) as made:
        yield made


def asked(seed: int, **changes: Any) -> Request:
    options = {"max_new_tokens": 200, "temperature": 1.0, "seed": seed, "schema": SCHEMA}
    return Request(f"number {seed}", **options | changes)  # type: ignore[arg-type]


def bits(found: list[Completion]) -> list[Any]:
    return [(each.ids, each.text, each.logprobs, each.finish_reason) for each in found]


def test_every_answer_fits_its_schema(engine: Engine) -> None:
    handles = [engine.submit(asked(i, n=2)) for i in range(12)]
    handles += [engine.submit(asked(i, temperature=t)) for i, t in enumerate((0.0, 3.0))]
    said = set()
    for handle in handles:
        for found in handle.results():
            assert found.finish_reason == "stop"
            value = json.loads(found.text)
            assert value.keys() == {"size", "n"}
            assert value["size"] in ("small", "large")
            assert 0 <= value["n"] <= 99
            said.add(found.text)
    assert len(said) > 1
    # The control: without it a random model writes no JSON.
    with pytest.raises(ValueError):
        json.loads(engine.submit(asked(0, schema=None)).result().text)


def test_a_guided_answer_is_its_requests_alone(model: HookedTransformer) -> None:
    """The same bits alone, and among guided and unguided others that are computed again."""
    long = {"type": "array", "items": SCHEMA, "minItems": 4, "maxItems": 5}
    free = {"schema": None, "max_new_tokens": 120}
    requests = [
        asked(i, logprobs=1, **(free if i % 3 == 0 else {"schema": long})) for i in range(9)
    ]
    want = []
    for request in requests:
        with Engine(model) as engine:
            want.append(bits(engine.submit(request).results()))
    tight = 12 * (model.config.n_layers * 2 * model.config.d_head * 64 * 4 + 1024)
    with Engine(model, max_running=6, token_budget=20, cache_bytes=tight) as engine:
        handles = [engine.submit(request) for request in reversed(requests)]
        assert [bits(each.results()) for each in handles] == want[::-1]
        assert engine.stats().preemptions > 0


@pytest.mark.parametrize("form", ["hermes", "llama3"])
@pytest.mark.parametrize(
    "choice",
    [
        ToolChoice("required"),
        ToolChoice("required", "stop"),
        ToolChoice("required", parallel=False),
        ToolChoice("auto"),
    ],
)
def test_calls_fit_their_tools(engine: Engine, form: str, choice: ToolChoice) -> None:
    grammar = call_grammar(FORMATS[form], TOOLS, choice, None)
    options = {"schema": None, "grammar": grammar, "max_new_tokens": 100}
    handles = [engine.submit(asked(i, **options)) for i in range(6)]
    for found in (handle.result() for handle in handles):
        parser = CallParser(FORMATS[form], ["add", "stop"], None)
        parts = [*parser.push(found.text), *parser.finish()]
        calls = [each for each in parts if isinstance(each, ToolCall)]
        if choice.kind == "auto":
            assert FORMATS[form].closing or not calls or len(calls) == len(parts)
            continue
        if found.finish_reason == "length":  # many calls, of which the last is cut
            calls, parts = calls[:-1], calls[:-1]
        assert parts == calls
        if choice.name or not choice.parallel:
            assert len(calls) == 1
        for call in calls:
            assert call.name == choice.name or choice.name is None
            assert call.arguments.keys() == (set() if call.name == "stop" else {"size", "n"})


def test_a_token_opens_a_list_of_calls(engine: Engine) -> None:
    """A special token, which the text does not show."""
    pad = 258
    grammar = call_grammar(FORMATS["mistral"], TOOLS, ToolChoice("required", parallel=False), pad)
    found = engine.submit(asked(3, schema=None, grammar=grammar)).result()
    assert found.ids[0] == pad
    assert found.text.lstrip()[0] == "["
    (call,) = json.loads(found.text)
    assert call["name"] in ("add", "stop")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": {"type": "strin"}}, "Invalid type"),
        ({"schema": {"not": {"type": "string"}}}, "Unimplemented keys"),
        ({"schema": {"$ref": "#/nowhere"}}, "/nowhere"),
        ({"schema": {"type": "string", "pattern": "("}}, "unclosed group"),
        ({"schema": {"type": "integer", "minimum": 2, "maximum": 1}}, "nsatisfiable"),
        ({"grammar": "start: A"}, "one of them"),
        ({"schema": None, "grammar": "start: A"}, "A"),
        ({"min_new_tokens": 3}, "min_new_tokens"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
    ],
)
def test_rules_that_cannot_be(engine: Engine, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.submit(asked(0, **changes))
    assert engine.submit(asked(0)).result().finish_reason == "stop"


def test_a_model_without_a_tokenizer_has_no_text_to_guide() -> None:
    with Engine(random_model("llama")) as engine, pytest.raises(ValueError, match="tokenizer"):
        engine.submit(Request([1, 2], schema=SCHEMA))


def test_the_extra_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(ModuleNotFoundError, match=r"bitlens\[tools\]"):
        engine.submit(asked(0))
