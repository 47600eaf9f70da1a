"""Conversations with tools, as a model's chat template takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..chat_template import Message
from ..tokenizer import Tokenizer
from .calls import CallParser, Tool, ToolChoice
from .formats import PLAIN, ToolFormat, format_of
from .grammar import call_grammar

_NO_TOOLS = ToolChoice("none")

SYSTEM_PROMPT = """You may call functions. These are their names, descriptions and parameters:
<tools>
{tools}
</tools>
To call one, write its name and its arguments as JSON between these marks, and nothing after them:
<tool_call>
{{"name": "the name", "arguments": {{"a parameter": "its value"}}}}
</tool_call>
What it returns comes between <tool_response> and </tool_response>."""
"""The text by which a model is told of tools whose chat template says nothing of them."""


@dataclass(frozen=True)
class Prepared:
    """A conversation as it is rendered, and how its answer is read.

    Attributes:
        messages, variables: For the chat template.
        grammar: Of the answer; None permits all.
    """

    messages: list[Message]
    variables: dict[str, Any]
    grammar: str | None
    form: ToolFormat
    names: frozenset[str]
    opening_id: int | None

    def parser(self) -> CallParser | None:
        """Returns what reads calls out of an answer, None where none are offered."""
        if not self.names:
            return None
        return CallParser(self.form, self.names, self.opening_id)


def prepare(
    tokenizer: Tokenizer | None,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    choice: ToolChoice = _NO_TOOLS,
) -> Prepared:
    """Returns a conversation with tools as the model's template takes it.

    Messages have the form that transformers gives them: `tool_calls` of an assistant, whose
    arguments are objects, and the role "tool" for what they returned. Where a template knows no
    tools, a system prompt tells of them, calls are text, and results come from the user.

    Raises ValueError for two tools of a name, for a choice that there is not, and for a template
    whose calls are written in a way that is not known.
    """
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise ValueError("tools: two have the same name")
    template = None if tokenizer is None else tokenizer.chat_template
    spoken = any(each.get("tool_calls") or each["role"] == "tool" for each in messages)
    if template is None or not (tools or spoken):
        return Prepared(list(messages), {}, None, PLAIN, frozenset(), None)
    assert tokenizer is not None
    known = format_of(template)
    form = known or PLAIN
    opening_id = tokenizer.token_id(form.opening) if form.is_token else None
    shown = tools if choice.kind != "none" else ()
    grammar = call_grammar(form, tools, choice, opening_id) if shown else None
    variables: dict[str, Any] = {}
    if known is None:
        messages = _told(_spoken(messages), shown)
    elif shown:
        variables = {"tools": [tool.as_template_takes_it() for tool in shown]}
    return Prepared(
        list(messages),
        variables,
        grammar,
        form,
        frozenset(tool.name for tool in shown),
        opening_id,
    )


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """Calls as the text that they were, and results as text of the user."""
    found: list[Message] = []
    last_role = None
    for message in messages:
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            text = f"<tool_response>\n{content}\n</tool_response>"
            if last_role == "tool":
                found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{text}"}
            else:
                found.append({"role": "user", "content": text})
        else:
            calls = [_written(call["function"]) for call in message.get("tool_calls") or ()]
            said = "\n".join([content, *calls] if content else calls)
            found.append({"role": role, "content": said if calls else content})
        last_role = role
    return found


def _written(function: Mapping[str, Any]) -> str:
    body = {"name": function["name"], PLAIN.arguments: function["arguments"]}
    return f"{PLAIN.opening}{json.dumps(body)}{PLAIN.closing}"


def _told(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    """The conversation with a system prompt, its own first, that tells of the tools."""
    if not tools:
        return messages
    lines = [json.dumps(tool.as_template_takes_it()["function"]) for tool in tools]
    text = SYSTEM_PROMPT.format(tools="\n".join(lines))
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
