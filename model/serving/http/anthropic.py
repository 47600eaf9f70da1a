"""`/v1/messages`, as the `anthropic` client speaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import Field

from ...text.tools import Prepared
from ..request import Completion, Request
from .anthropic_messages import (
    Choice,
    CustomTool,
    System,
    Turn,
    choice_of,
    require_few_marks,
    tools_of,
    turns,
)
from .errors import ApiError
from .fields import (
    Body,
    conversation_of,
    event,
    extras,
    n_tokens,
    prepared,
    salt_of,
    service_of,
    streamed,
)
from .service import Answer, Service
from .speech import Part, Speech

router = APIRouter()


class Conversation(Body):
    """A system prompt, tools and turns, as they are counted."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    system: System | None = None
    tools: Annotated[list[CustomTool], Field(min_length=1)] | None = None
    tool_choice: Choice | None = None

    def prepared(self, service: Service) -> Prepared:
        """Returns the conversation as the model's template takes it.

        Raises ApiError for what the API does not permit, and for tools that cannot be offered.
        """
        require_few_marks(self.system, self.messages, self.tools)
        offered = tools_of(self.tools)
        choice = choice_of(self.tool_choice, offered=bool(offered))
        return prepared(service, turns(self.system, self.messages), offered, choice)


class MessagesBody(Conversation):
    """`/v1/messages`. `metadata` changes nothing."""

    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop_sequences: Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool = False
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)
    metadata: dict[str, str] | None = None


@router.post("/v1/messages", response_model=None)
async def messages(request: HttpRequest, body: MessagesBody) -> Any:
    """Answers a conversation."""
    service = service_of(request, body)
    conversation = body.prepared(service)
    asked = Request(
        conversation.messages,
        template_variables=conversation.variables,
        grammar=conversation.grammar,
        max_new_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        seed=body.seed,
        stop=body.stop_sequences,
        logprobs=0 if body.return_token_ids else None,
        salt=salt_of(request, body.cache_salt),
        pool_fingerprint=body.pool_fingerprint,
    )
    answer = await service.submit(asked, conversation_of(request, body))
    speech = Speech(conversation, 1)
    if body.stream:
        return _streamed(answer, service, body, speech)
    async for piece in answer.pieces():
        speech.push(piece)
    (completion,) = answer.finished()
    speech.end(0)
    return {
        **_head(service, answer),
        "content": [_block(part, whole=True) for part in speech.blocks(0) or [""]],
        **_end(completion, speech),
        "usage": _usage(completion),
        **extras(completion, body),
    }


@router.post("/v1/messages/count_tokens")
async def count_tokens(request: HttpRequest, body: Conversation) -> dict[str, int]:
    """The tokens of a conversation, its template's included."""
    service = service_of(request, body)
    return {"input_tokens": n_tokens(service, body.prepared(service))}


def _streamed(
    answer: Answer, service: Service, body: MessagesBody, speech: Speech
) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        head = _head(service, answer)
        head |= {"content": [], "stop_reason": None, "stop_sequence": None}
        head["usage"] = {"input_tokens": 0, "output_tokens": 0}
        yield event({"type": "message_start", "message": head}, "message_start")
        blocks = _Blocks()
        async for piece in answer.pieces():
            for each in blocks.add(speech.push(piece)):
                yield each
        for each in [*blocks.add(speech.end(0)), *blocks.close()]:
            yield each
        try:
            (completion,) = answer.finished()
        except ApiError as error:
            said = {"type": "api_error", "message": error.message}
            yield event({"type": "error", "error": said}, "error")
            return
        ended = {
            "type": "message_delta",
            "delta": {**_end(completion, speech), **extras(completion, body)},
            "usage": _usage(completion),
        }
        yield event(ended, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    return streamed(events())


class _Blocks:
    """The events of an answer's blocks: one of text stays open until a call comes."""

    def __init__(self) -> None:
        self._index = 0
        self._open = False

    def add(self, parts: list[Part]) -> Iterator[str]:
        for part in parts:
            if isinstance(part, str):
                if not self._open:
                    yield self._event("content_block_start", content_block=_block("", whole=False))
                    self._open = True
                yield self._delta({"type": "text_delta", "text": part})
                continue
            if self._open:
                yield self._stop()
            yield self._event("content_block_start", content_block=_block(part, whole=False))
            yield self._delta(
                {"type": "input_json_delta", "partial_json": json.dumps(part.arguments)}
            )
            yield self._stop()

    def close(self) -> Iterator[str]:
        if not self._open and self._index == 0:
            yield self._event("content_block_start", content_block=_block("", whole=False))
            self._open = True
        if self._open:
            yield self._stop()

    def _stop(self) -> str:
        said = self._event("content_block_stop")
        self._index, self._open = self._index + 1, False
        return said

    def _delta(self, delta: dict[str, str]) -> str:
        return self._event("content_block_delta", delta=delta)

    def _event(self, kind: str, **fields: Any) -> str:
        return event({"type": kind, "index": self._index, **fields}, kind)


def _block(part: Part, *, whole: bool) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    made = dict(part.arguments) if whole else {}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": made}


def _head(service: Service, answer: Answer) -> dict[str, Any]:
    return {
        "id": "msg_" + answer.id,
        "type": "message",
        "role": "assistant",
        "model": service.name,
        "system_fingerprint": answer.fingerprint,
    }


def _end(completion: Completion, speech: Speech) -> dict[str, Any]:
    if completion.finish_reason == "alarm":
        return {"stop_reason": "refusal", "stop_sequence": None}
    if completion.finish_reason != "stop":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if completion.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": completion.stopped_by}
    reason = "tool_use" if speech.calls(0) else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(completion: Completion) -> dict[str, int]:
    """The prompt's tokens by how they are paid for: each stands in one of three."""
    usage = completion.usage
    return {
        "input_tokens": usage.prompt - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": usage.output,
    }
