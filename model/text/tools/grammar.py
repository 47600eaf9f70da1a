"""The grammar of an answer that may or must call tools, in llguidance's Lark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .calls import Tool, ToolChoice
from .formats import ToolFormat

_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def call_grammar(
    form: ToolFormat, tools: Sequence[Tool], choice: ToolChoice, opening_id: int | None
) -> str:
    """Returns a grammar whose calls fit their tools' schemas.

    Args:
        opening_id: The token that opens calls, where that is what the format says.

    Raises ValueError for a choice of a tool that is not there, and for a format whose opening the
    tokenizer lacks.
    """
    offered = [tool for tool in tools if choice.name in (None, tool.name)]
    if not offered:
        raise ValueError(f"tool_choice: {choice.name!r} is none of the tools")
    if form.is_token and opening_id is None:
        raise ValueError(f"tools: the tokenizer has no token {form.opening}")
    many = choice.parallel and choice.name is None
    rules = {
        "hermes": _between_marks,
        "mistral": _in_a_list,
        "llama3": _alone,
    }[form.name](form, choice.kind == "auto", many, opening_id)
    body = _body(form, offered, many)
    return "\n".join(["%llguidance {}", *rules, f"body: %json {json.dumps(body)}"]) + "\n"


def _body(form: ToolFormat, tools: Sequence[Tool], many: bool) -> dict[str, Any]:
    """The schema of a call, or of a list of them."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, form.arguments: dict(tool.parameters)},
            "required": ["name", form.arguments],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    call: dict[str, Any] = {"anyOf": calls} if len(calls) > 1 else calls[0]
    if form.is_list:
        most = {} if many else {"maxItems": 1}
        call = {"type": "array", "items": call, "minItems": 1, **most}
    return {**call, "x-guidance": _JSON}


def _between_marks(form: ToolFormat, auto: bool, many: bool, opening_id: int | None) -> list[str]:
    opening, closing = json.dumps(form.opening), json.dumps(form.closing)
    more = f'("\\n" {opening} body {closing})*' if many else ""
    if not auto:
        return [f"start: {opening} body {closing} {more}"]
    return [
        f"start: TEXT | first body {closing} {more}",
        "TEXT: /(.|\\n)*/",
        f"first[lazy]: TEXT {opening}",
    ]


def _in_a_list(form: ToolFormat, auto: bool, many: bool, opening_id: int | None) -> list[str]:
    calls = f'<[{opening_id}]> " "? body'
    if not auto:
        return [f"start: {calls}"]
    return [f"start: TEXT | TEXT {calls}", "TEXT: /(.|\\n)*/"]


def _alone(form: ToolFormat, auto: bool, many: bool, opening_id: int | None) -> list[str]:
    calls = 'body ("; " body)*' if many else "body"
    if not auto:
        return [f"start: {calls}"]
    return [f"start: TEXT | {calls}", "TEXT: /([^{;\\s](.|\\n)*)?/"]
