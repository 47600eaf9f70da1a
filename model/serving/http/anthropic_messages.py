"""Conversations and tools, as the `anthropic` client writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...text.tools import Tool, ToolChoice
from .errors import ApiError

MAX_BREAKPOINTS = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CacheControl(_Strict):
    """A mark after which a prompt is kept. Every prompt is, so that it changes nothing."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(_Strict):
    """A piece of a turn."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ToolUseBlock(_Strict):
    """A call that the model has made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(_Strict):
    """The result of a call. An error is told by its text: `is_error` changes nothing."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None


Block = Annotated[TextBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]
System = str | Annotated[list[TextBlock], Field(min_length=1)]


class Turn(_Strict):
    """A turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[Block], Field(min_length=1)]


class CustomTool(_Strict):
    """A tool."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str = ""
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    cache_control: CacheControl | None = None


class Choice(_Strict):
    """Whether tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


def turns(system: System | None, messages: Sequence[Turn]) -> list[dict[str, Any]]:
    """Returns the conversation as chat templates take it.

    Raises ApiError for a call by the user, and for a result of no call.
    """
    found: list[dict[str, Any]] = []
    if system is not None:
        found.append({"role": "system", "content": _text(system)})
    called: set[str] = set()
    for turn in messages:
        blocks = turn.content
        if isinstance(blocks, str):
            found.append({"role": turn.role, "content": blocks})
            continue
        found += _assistant(blocks, called) if turn.role == "assistant" else _user(blocks, called)
    return found


def _assistant(blocks: Sequence[Block], called: set[str]) -> list[dict[str, Any]]:
    if any(isinstance(block, ToolResultBlock) for block in blocks):
        raise ApiError(400, "messages: a tool_result is the user's")
    calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
    called.update(call.id for call in calls)
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    turn: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.input},
            }
            for call in calls
        ]
    return [turn]


def _user(blocks: Sequence[Block], called: set[str]) -> list[dict[str, Any]]:
    """Results, and then what the user says."""
    found: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, ToolUseBlock):
            raise ApiError(400, "messages: a tool_use is the assistant's")
        if isinstance(block, ToolResultBlock):
            if block.tool_use_id not in called:
                raise ApiError(400, f"tool_use_id: no call before has {block.tool_use_id!r}")
            result = {"content": _text(block.content), "tool_call_id": block.tool_use_id}
            found.append({"role": "tool", **result})
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    return [*found, {"role": "user", "content": "\n".join(texts)}] if texts else found


def require_few_marks(system: System | None, messages: Sequence[Turn], tools: Any) -> None:
    """Raises ApiError for more marks of what is to be kept than the API permits."""
    contents = [system, *(turn.content for turn in messages)]
    marked = [block for each in contents if isinstance(each, list) for block in each]
    if sum(each.cache_control is not None for each in [*marked, *(tools or ())]) > MAX_BREAKPOINTS:
        raise ApiError(400, f"cache_control: at most {MAX_BREAKPOINTS} of them")


def tools_of(tools: Sequence[CustomTool] | None) -> list[Tool]:
    """Returns the tools of a request."""
    return [Tool(each.name, each.description, each.input_schema) for each in tools or ()]


def choice_of(choice: Choice | None, *, offered: bool) -> ToolChoice:
    """Returns whether tools are called. Raises ApiError for a choice that cannot be."""
    if choice is None:
        return ToolChoice("auto" if offered else "none")
    if choice.type != "none" and not offered:
        raise ApiError(400, "tool_choice: there are no tools", "tool_choice")
    if (choice.name is not None) != (choice.type == "tool"):
        raise ApiError(400, 'tool_choice: a name goes with type "tool"', "tool_choice")
    parallel = not choice.disable_parallel_tool_use
    if choice.type in ("none", "auto"):
        return ToolChoice("none" if choice.type == "none" else "auto", None, parallel)
    return ToolChoice("required", choice.name, parallel)


def _text(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
