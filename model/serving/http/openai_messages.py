"""Conversations, tools and formats of answers, as the `openai` client writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...text.tools import Tool, ToolCall, ToolChoice
from .errors import ApiError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CalledFunction(_Strict):
    """The function of a call. `arguments` is JSON."""

    name: str
    arguments: str


class MadeCall(_Strict):
    """A call that an assistant has made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(_Strict):
    """A turn of a conversation, without tools."""

    role: Literal["system", "user"]
    content: str
    name: str | None = None


class AssistantMessage(_Strict):
    """The model's own turn."""

    role: Literal["assistant"]
    content: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[MadeCall], Field(min_length=1)] | None = None


class ToolMessage(_Strict):
    """The result of a call."""

    role: Literal["tool"]
    content: str
    tool_call_id: str


AnyMessage = Annotated[Message | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(_Strict):
    """A function that may be called. Its calls always fit its parameters: `strict` changes
    nothing."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(_Strict):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Strict):
    """The name of a function."""

    name: str


class NamedTool(_Strict):
    """The choice of one tool."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Strict):
    """A schema. Answers always fit it: `strict` changes nothing."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextFormat(_Strict):
    """Any text."""

    type: Literal["text"]


class JsonFormat(_Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Strict):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]
Choice = Literal["none", "auto", "required"] | NamedTool | None


def turns(messages: Sequence[Message | AssistantMessage | ToolMessage]) -> list[dict[str, Any]]:
    """Returns the conversation as chat templates take it.

    Raises ApiError for arguments of a call that are no JSON object, and for a result of no call.
    """
    found, called = [], set()
    for message in messages:
        turn = message.model_dump(exclude_none=True)
        if isinstance(message, AssistantMessage):
            turn["content"] = message.content or ""
            for call in turn.get("tool_calls", ()):
                called.add(call["id"])
                call["function"]["arguments"] = _object(call["function"]["arguments"])
        elif isinstance(message, ToolMessage) and message.tool_call_id not in called:
            raise ApiError(400, f"tool_call_id: no call before has {message.tool_call_id!r}")
        found.append(turn)
    return found


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, "tool_calls: arguments are the JSON of an object", "messages")
    return value


def tools_of(tools: Sequence[FunctionTool] | None) -> list[Tool]:
    """Returns the tools of a request."""
    functions = [tool.function for tool in tools or ()]
    return [
        Tool(each.name, each.description, each.parameters or {"type": "object", "properties": {}})
        for each in functions
    ]


def choice_of(choice: Choice, *, offered: bool, parallel: bool) -> ToolChoice:
    """Returns whether tools are called. Raises ApiError for a choice without any."""
    if choice is not None and choice != "none" and not offered:
        raise ApiError(400, "tool_choice: there are no tools", "tool_choice")
    if isinstance(choice, NamedTool):
        return ToolChoice("required", choice.function.name, parallel)
    return ToolChoice(choice or ("auto" if offered else "none"), None, parallel)


def schema_of(form: TextFormat | JsonFormat | SchemaFormat | None) -> Mapping[str, Any] | None:
    """Returns the schema of an answer, None for text."""
    if isinstance(form, JsonFormat):
        return {"type": "object"}
    return form.json_schema.schema_ if isinstance(form, SchemaFormat) else None


def written(call: ToolCall) -> dict[str, Any]:
    """Returns a call as the client reads it."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}
