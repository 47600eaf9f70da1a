"""`/v1/completions`, `/v1/chat/completions` and `/v1/models`, as the `openai` client speaks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ...text.tokenizer import Tokenizer
from ..handle import Piece
from ..request import Completion, Request
from .errors import ApiError
from .fields import (
    Body,
    conversation_of,
    event,
    extras,
    n_tokens,
    require_model,
    room_for,
    salt_of,
    service_of,
    streamed,
)
from .service import Answer, Service

router = APIRouter()

Stop = str | Annotated[list[str], Field(max_length=16)] | None


class StreamOptions(BaseModel):
    """Switches for what a stream holds beside pieces."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class Sampled(Body):
    """Fields of both routes. `user`, `metadata` and `store` = false change nothing."""

    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)
    stop: Stop = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[int, float] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None

    def options(self) -> dict[str, Any]:
        """Returns the fields of a `Request` that these are."""
        return {
            "temperature": self.temperature,
            "top_p": None if self.top_p == 1 else self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "n": self.n,
            "seed": self.seed,
            "stop": self.stop,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias or {},
            "pool_fingerprint": self.pool_fingerprint,
        }


class CompletionBody(Sampled):
    """`/v1/completions`."""

    prompt: str | list[int]
    max_tokens: int = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


class ChatBody(Sampled):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


@router.get("/v1/models")
async def models(request: HttpRequest) -> dict[str, Any]:
    """The one model."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [_model(service)]}


@router.get("/v1/models/{name:path}")
async def model(request: HttpRequest, name: str) -> dict[str, Any]:
    """The one model, if it has this name."""
    service: Service = request.app.state.service
    require_model(service, name)
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": 0, "owned_by": "bitlens"}


@router.post("/v1/completions", response_model=None)
async def completions(request: HttpRequest, body: CompletionBody) -> Any:
    """Continues a prompt."""
    service = service_of(request, body)
    asked = Request(
        body.prompt,
        max_new_tokens=body.max_tokens,
        logprobs=0 if body.logprobs is None and body.return_token_ids else body.logprobs,
        salt=salt_of(request, body.cache_salt),
        **body.options(),
    )
    answer = await service.submit(asked, conversation_of(request, body))
    shape = _Shape("cmpl-", "text_completion", service, answer, body, chat=False)
    return await _answered(answer, shape, body)


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: HttpRequest, body: ChatBody) -> Any:
    """Answers a conversation."""
    service = service_of(request, body)
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    wanted = body.max_completion_tokens or body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    asked = Request(
        messages,
        max_new_tokens=wanted or room_for(service, request, body, n_tokens(service, messages)),
        logprobs=0 if logprobs is None and body.return_token_ids else logprobs,
        salt=salt_of(request, body.cache_salt),
        **body.options(),
    )
    answer = await service.submit(asked, conversation_of(request, body))
    shape = _Shape("chatcmpl-", "chat.completion", service, answer, body, chat=True)
    return await _answered(answer, shape, body)


class _Shape:
    """How one answer is written down."""

    def __init__(
        self,
        prefix: str,
        kind: str,
        service: Service,
        answer: Answer,
        body: Sampled,
        *,
        chat: bool,
    ) -> None:
        self.kind, self.chat, self.body = kind, chat, body
        self.tokenizer = service.router.model.tokenizer
        self.head = {
            "id": prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": service.name,
            "system_fingerprint": answer.fingerprint,
        }

    def whole(self, found: Sequence[Completion]) -> dict[str, Any]:
        choices = [self._choice(i, each, self._said(each)) for i, each in enumerate(found)]
        return {**self.head, "object": self.kind, "choices": choices, "usage": usage(found)}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = self.kind + (".chunk" if self.chat else "")
        return {**self.head, "object": kind, "choices": choices}

    def piece(self, piece: Piece) -> dict[str, Any]:
        said = {"delta": {"content": piece.text}} if self.chat else {"text": piece.text}
        more: dict[str, Any] = {"logprobs": None, "finish_reason": None}
        if self.body.return_token_ids:
            more["token_ids"] = [] if piece.id is None else [piece.id]
        return {"index": piece.sample, **said, **more}

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        return self._choice(index, completion, {"delta": {}} if self.chat else {"text": ""})

    def _choice(self, index: int, completion: Completion, said: dict[str, Any]) -> dict[str, Any]:
        return {
            "index": index,
            **said,
            "logprobs": self._logprobs(completion),
            "finish_reason": _reason(completion),
            **extras(completion, self.body),
        }

    def _said(self, completion: Completion) -> dict[str, Any]:
        if self.chat:
            return {"message": {"role": "assistant", "content": completion.text}}
        return {"text": completion.text}

    def _logprobs(self, completion: Completion) -> dict[str, Any] | None:
        asked = getattr(self.body, "logprobs", None)
        if completion.logprobs is None or asked in (None, False) or self.tokenizer is None:
            return None
        if self.chat:
            return {"content": _chat_logprobs(completion, self.tokenizer)}
        return _text_logprobs(completion, self.tokenizer)


def _chat_logprobs(completion: Completion, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        (text,) = tokenizer.token_strings([token_id])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    pairs = zip(completion.ids, completion.logprobs or [], strict=True)
    return [
        entry(token_id, logprob)
        | {"top_logprobs": [entry(*each) for each in zip(ids, best, strict=True)]}
        for token_id, (logprob, ids, best) in pairs
    ]


def _text_logprobs(completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    tokens = tokenizer.token_strings(completion.ids)
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    found = completion.logprobs or []
    top = [dict(zip(tokenizer.token_strings(ids), best, strict=True)) for _, ids, best in found]
    return {
        "tokens": tokens,
        "token_logprobs": [logprob for logprob, *_ in found],
        "top_logprobs": top,
        "text_offset": offsets,
    }


async def _answered(answer: Answer, shape: _Shape, body: Sampled) -> Any:
    if not body.stream:
        return shape.whole(await answer.completions())
    return _streamed(answer, shape, body)


def _streamed(answer: Answer, shape: _Shape, body: Sampled) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        if shape.chat:
            opened = [
                {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                for i in range(body.n)
            ]
            yield event(shape.chunk(opened))
        async for piece in answer.pieces():
            if piece.text or body.return_token_ids:
                yield event(shape.chunk([shape.piece(piece)]))
        try:
            found = answer.finished()
        except ApiError as error:
            yield event({"error": {"message": error.message, "type": "api_error"}})
            return
        for i, each in enumerate(found):
            yield event(shape.chunk([shape.end(i, each)]))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(shape.chunk([]) | {"usage": usage(found)})
        yield event("[DONE]")

    return streamed(events())


def usage(found: Sequence[Completion]) -> dict[str, Any]:
    """Returns the bill of a request: the prompt once, every answer."""
    first = found[0].usage
    output = sum(each.usage.output for each in found)
    return {
        "prompt_tokens": first.prompt,
        "completion_tokens": output,
        "total_tokens": first.prompt + output,
        "prompt_tokens_details": {
            "cached_tokens": first.cached,
            "cache_write_tokens": first.written,
        },
    }


def _reason(completion: Completion) -> str:
    return "stop" if completion.finish_reason == "stop" else "length"
