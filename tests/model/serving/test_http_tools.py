"""Tools and JSON over HTTP, as both official clients meet them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from bitlens.model.serving import Engine, Request
from bitlens.model.text.tools import Tool, ToolChoice, prepare
from support.http_server import TEMPLATE, Server, serving
from support.random_models import byte_tokenizer, random_model

WITH_TOOLS = (
    "{% if tools %}<bos>tools\n{% for t in tools %}{{ t | tojson }}{% endfor %}<eos>{% endif %}"
    "{% for m in messages %}<bos>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant\n{% endif %}"
)
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2, 3]}, "where": {"enum": ["here", "there"]}},
    "required": ["a", "where"],
    "additionalProperties": False,
}
FOR_OPENAI: Any = [
    {
        "type": "function",
        "function": {"name": name, "description": f"To {name}", "parameters": PARAMETERS},
    }
    for name in ("find", "put")
]
FOR_ANTHROPIC: Any = [
    {"name": name, "description": f"To {name}", "input_schema": PARAMETERS}
    for name in ("find", "put")
]
ASKED: Any = [{"role": "user", "content": "Find it."}]


@pytest.fixture(scope="module", params=[TEMPLATE, WITH_TOOLS], ids=["plain", "with tools"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    model = random_model("llama", tokenizer=byte_tokenizer(request.param), changes={"n_ctx": 2048})
    yield from serving({"only": model})


def fits(arguments: Any) -> bool:
    return arguments["a"] in (1, 2, 3) and arguments["where"] in ("here", "there")


def test_calls_as_the_openai_client_reads_them(server: Server) -> None:
    create = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none").chat.completions.create
    options: Any = {"model": "tiny", "tools": FOR_OPENAI, "max_tokens": 300, "seed": 3}
    once = {"parallel_tool_calls": False, "tool_choice": "required"}
    extra = {"extra_body": {"return_token_ids": True}}
    (choice,) = create(messages=ASKED, **options, **once, **extra).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert fits(json.loads(call.function.arguments))
    # Bits: those of the same request from Python.
    tools = [Tool(name, f"To {name}", PARAMETERS) for name in ("find", "put")]
    ready = prepare(server.model.tokenizer, ASKED, tools, ToolChoice("required", parallel=False))
    with Engine(server.model) as engine:
        asked = Request(
            ready.messages, template_variables=ready.variables, grammar=ready.grammar,
            max_new_tokens=300, temperature=1.0, seed=3,
        )  # fmt: skip
        assert engine.submit(asked).result().ids == choice.model_extra["token_ids"]
    # Streamed: the same call, and nothing of it as text.
    chunks = list(create(messages=ASKED, **options, **once, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    (made,) = (each for delta in deltas for each in delta.tool_calls or ())
    assert (made.index, made.function.name) == (0, call.function.name)
    assert made.function.arguments == call.function.arguments
    assert not any(delta.content for delta in deltas)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    # And back: the call and its result are turns that the template writes.
    said = choice.message.model_dump(include={"role", "content", "tool_calls"})
    result = {"role": "tool", "content": "nowhere", "tool_call_id": call.id}
    again = create(messages=[*ASKED, said, result], **options, tool_choice="none")
    assert again.choices[0].message.tool_calls is None
    assert again.usage.prompt_tokens > 80
    named: Any = {"type": "function", "function": {"name": "put"}}
    (call,) = create(messages=ASKED, **options, tool_choice=named).choices[0].message.tool_calls
    assert call.function.name == "put"


def test_calls_as_the_anthropic_client_reads_them(server: Server) -> None:
    client = anthropic.Anthropic(base_url=server.url, api_key="none")
    options: Any = {
        "model": "tiny", "tools": FOR_ANTHROPIC, "max_tokens": 300, "extra_body": {"seed": 5},
    }  # fmt: skip
    once: Any = {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    found = client.messages.create(messages=ASKED, **options, **once)
    (block,) = found.content
    assert (found.stop_reason, block.type) == ("tool_use", "tool_use")
    assert fits(block.input)
    with client.messages.stream(messages=ASKED, **options, **once) as stream:
        (streamed,) = stream.get_final_message().content
    assert (streamed.name, streamed.input) == (block.name, block.input)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "nowhere"}
    turns: Any = [
        *ASKED,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True)]},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    never = client.messages.create(
        messages=turns, **options, tool_choice={"type": "none"}, system="Be brief."
    )
    assert never.stop_reason in ("end_turn", "max_tokens")
    counted = client.messages.count_tokens(model="tiny", messages=turns, tools=FOR_ANTHROPIC)
    assert counted.input_tokens > 300
    named = client.messages.create(
        messages=ASKED, **options, tool_choice={"type": "tool", "name": "put"}
    )
    assert [each.name for each in named.content] == ["put"]  # type: ignore[union-attr]


def test_answers_that_are_json(server: Server) -> None:
    create = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none").chat.completions.create
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "where", "schema": PARAMETERS, "strict": True},
    }
    found = create(
        model="tiny", messages=ASKED, response_format=form, n=3, max_tokens=200, logprobs=True
    )
    for choice in found.choices:
        assert choice.finish_reason == "stop"
        assert fits(json.loads(choice.message.content or ""))
    text = create(
        model="tiny", messages=ASKED, response_format={"type": "json_object"}, max_tokens=40,
        logprobs=True, top_logprobs=3,
    )  # fmt: skip
    listed = [len(each.top_logprobs) for each in text.choices[0].logprobs.content]
    assert listed[0] == 1  # JSON allows fewer tokens than are asked for
    assert (text.choices[0].message.content or "").startswith("{")


def test_the_extra_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    asked = {"model": "tiny", "messages": ASKED, "max_tokens": 5}
    answer = server.post(CHAT, {**asked, "response_format": {"type": "json_object"}})
    assert answer.status_code == 400
    assert "bitlens[tools]" in answer.json()["error"]["message"]
    assert server.post(CHAT, asked).status_code == 200


CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "[]"}}
USE = {"type": "tool_use", "id": "1", "name": "a", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "1"}
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (CHAT, {"tool_choice": "required"}, "there are no tools"),
        (CHAT, {"tools": FOR_OPENAI[:1] * 2}, "the same name"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "tools"),
        (
            CHAT,
            {"tools": FOR_OPENAI, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "'x' is none of the tools",
        ),
        (CHAT, {"tools": FOR_OPENAI, "response_format": {"type": "json_object"}}, "no room"),
        (
            CHAT,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "schema",
        ),
        (CHAT, {"messages": [*ASKED, {"role": "assistant", "tool_calls": [CALL]}]}, "an object"),
        (CHAT, {"messages": [{"role": "function", "content": "a"}]}, "role"),
        (MESSAGES, {"tool_choice": {"type": "any"}}, "there are no tools"),
        (MESSAGES, {"tools": FOR_ANTHROPIC, "tool_choice": {"type": "tool"}}, "a name goes with"),
        (
            MESSAGES,
            {"tools": [{"name": "a", "input_schema": {"not": {}}}]},
            "Unimplemented keys",
        ),
        (
            MESSAGES,
            {"messages": [{"role": "user", "content": [USE]}]},
            "the assistant's",
        ),
        (
            MESSAGES,
            {"messages": [{"role": "user", "content": [RESULT]}]},
            "no call before",
        ),
    ],
)
def test_what_cannot_be_offered_is_named(
    server: Server, path: str, change: dict[str, Any], said: str
) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 5, **change}
    answer = server.post(path, body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]
