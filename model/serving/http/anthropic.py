"""`/v1/messages`, as the `anthropic` client speaks."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ..request import Completion, Request
from .errors import ApiError
from .fields import Body, conversation_of, event, extras, n_tokens, salt_of, service_of, streamed
from .service import Answer, Service

router = APIRouter()

MAX_BREAKPOINTS = 4


class CacheControl(BaseModel):
    """A mark after which a prompt is kept. Every prompt is, so that it changes nothing."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(BaseModel):
    """A piece of a turn."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


Content = str | Annotated[list[TextBlock], Field(min_length=1)]


class Turn(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: Content


class Conversation(Body):
    """A system prompt and turns, as they are counted."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    system: Content | None = None

    def turns(self) -> list[dict[str, str]]:
        """Returns the conversation as a chat template takes it.

        Raises ApiError for more marks than the API permits.
        """
        contents = [turn.content for turn in self.messages]
        blocks = [
            block
            for content in [self.system or "", *contents]
            if not isinstance(content, str)
            for block in content
        ]
        if sum(block.cache_control is not None for block in blocks) > MAX_BREAKPOINTS:
            raise ApiError(400, f"cache_control: at most {MAX_BREAKPOINTS} of them")
        turns = [
            {"role": turn.role, "content": _text(content)}
            for turn, content in zip(self.messages, contents, strict=True)
        ]
        if self.system is not None:
            turns.insert(0, {"role": "system", "content": _text(self.system)})
        return turns


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
    asked = Request(
        body.turns(),
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
    if body.stream:
        return _streamed(answer, service, body)
    (completion,) = await answer.completions()
    block = {"type": "text", "text": completion.text}
    return {
        **_head(service, answer),
        "content": [block],
        **_end(completion),
        "usage": _usage(completion),
        **extras(completion, body),
    }


@router.post("/v1/messages/count_tokens")
async def count_tokens(request: HttpRequest, body: Conversation) -> dict[str, int]:
    """The tokens of a conversation, its template's included."""
    return {"input_tokens": n_tokens(service_of(request, body), body.turns())}


def _streamed(answer: Answer, service: Service, body: MessagesBody) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        head = _head(service, answer) | {"content": [], "stop_reason": None, "stop_sequence": None}
        head["usage"] = {"input_tokens": 0, "output_tokens": 0}
        yield event({"type": "message_start", "message": head}, "message_start")
        start = {"type": "content_block_start", "index": 0}
        yield event(start | {"content_block": {"type": "text", "text": ""}}, start["type"])  # type: ignore[arg-type]
        async for piece in answer.pieces():
            if piece.text:
                delta = {"type": "text_delta", "text": piece.text}
                name = "content_block_delta"
                yield event({"type": name, "index": 0, "delta": delta}, name)
        yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        try:
            (completion,) = answer.finished()
        except ApiError as error:
            said = {"type": "api_error", "message": error.message}
            yield event({"type": "error", "error": said}, "error")
            return
        ended = {
            "type": "message_delta",
            "delta": {**_end(completion), **extras(completion, body)},
            "usage": _usage(completion),
        }
        yield event(ended, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    return streamed(events())


def _head(service: Service, answer: Answer) -> dict[str, Any]:
    return {
        "id": "msg_" + uuid.uuid4().hex,
        "type": "message",
        "role": "assistant",
        "model": service.name,
        "system_fingerprint": answer.fingerprint,
    }


def _end(completion: Completion) -> dict[str, Any]:
    if completion.finish_reason != "stop":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if completion.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": completion.stopped_by}
    return {"stop_reason": "end_turn", "stop_sequence": None}


def _usage(completion: Completion) -> dict[str, int]:
    """The prompt's tokens by how they are paid for: each stands in one of three."""
    usage = completion.usage
    return {
        "input_tokens": usage.prompt - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": usage.output,
    }


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
