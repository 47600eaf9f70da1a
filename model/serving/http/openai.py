"""`/v1/completions`, `/v1/chat/completions` and `/v1/models`, as the `openai` client speaks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ...text.tokenizer import Tokenizer
from ..request import Completion, Request
from .echo import OnePrompt, prompts_of, text_logprobs, with_prompt, without_answer
from .errors import ApiError
from .fields import (
    Body,
    conversation_of,
    event,
    extras,
    n_tokens,
    prepared,
    require_model,
    room_for,
    salt_of,
    service_of,
    streamed,
)
from .openai_messages import (
    AnyMessage,
    Choice,
    FunctionTool,
    ResponseFormat,
    choice_of,
    schema_of,
    tools_of,
    turns,
    written,
)
from .service import Answer, Service
from .speech import Part, Speech

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

    prompt: str | list[int] | Annotated[list[str] | list[list[int]], Field(max_length=128)]
    max_tokens: int = Field(default=16, ge=0)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)


class ChatBody(Sampled):
    """`/v1/chat/completions`."""

    messages: Annotated[list[AnyMessage], Field(min_length=1)]
    tools: Annotated[list[FunctionTool], Field(min_length=1)] | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
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
    """Continues a prompt, or several."""
    service = service_of(request, body)
    prompts = prompts_of(body.prompt)
    _check_prompts(service, body, len(prompts))
    answers: list[Answer] = []
    try:
        for prompt in prompts:
            asked = Request(
                prompt,
                max_new_tokens=max(body.max_tokens, 1),
                logprobs=0 if body.logprobs is None and body.return_token_ids else body.logprobs,
                prompt_logprobs=body.logprobs if body.echo else None,
                salt=salt_of(request, body.cache_salt),
                **body.options(),
            )
            answers.append(await service.submit(asked, conversation_of(request, body)))
        shape = _Shape("cmpl-", "text_completion", service, answers[0], body, chat=False)
        if body.stream:
            return _streamed(answers[0], shape, body, Speech(None, body.n))
        return await _all(answers, prompts, shape, body)
    finally:
        for answer in () if body.stream else answers:
            answer.drop()


def _check_prompts(service: Service, body: CompletionBody, n_prompts: int) -> None:
    """Raises ApiError for combinations that are not served."""
    if body.stream and (body.echo or n_prompts > 1):
        raise ApiError(400, "stream: takes one prompt, and no echo", "stream")
    if body.max_tokens == 0 and not body.echo:
        raise ApiError(400, "max_tokens: 0 is for echo, which reads the prompt alone", "max_tokens")
    if body.echo and service.router.model.tokenizer is None:
        raise ApiError(400, "echo: this model has no tokenizer", "echo")


async def _all(
    answers: Sequence[Answer], prompts: Sequence[OnePrompt], shape: _Shape, body: CompletionBody
) -> dict[str, Any]:
    """The answers to all prompts as one: choices in their order, one bill."""
    choices: list[dict[str, Any]] = []
    bills: list[dict[str, Any]] = []
    for answer, prompt in zip(answers, prompts, strict=True):
        speech = Speech(None, body.n)
        found = await _ended(answer, speech)
        if body.max_tokens == 0:
            found, speech = [without_answer(each) for each in found], Speech(None, body.n)
        whole = shape.whole(found, speech)
        for choice in whole["choices"]:
            if body.echo and shape.tokenizer is not None:
                choice = with_prompt(choice, prompt, found[0], shape.tokenizer)
            choices.append({**choice, "index": len(choices)})
        bills.append(whole["usage"])
    return {**whole, "choices": choices, "usage": _added(bills)}


def _added(bills: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of several bills, name by name."""
    return {
        name: _added([bill[name] for bill in bills])
        if isinstance(value, dict)
        else sum(bill[name] for bill in bills)
        for name, value in bills[0].items()
    }


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: HttpRequest, body: ChatBody) -> Any:
    """Answers a conversation."""
    service = service_of(request, body)
    offered, schema = tools_of(body.tools), schema_of(body.response_format)
    choice = choice_of(body.tool_choice, offered=bool(offered), parallel=body.parallel_tool_calls)
    if schema is not None and choice.kind != "none":
        raise ApiError(400, "response_format: JSON leaves no room for tools", "response_format")
    conversation = prepared(service, turns(body.messages), offered, choice)
    wanted = body.max_completion_tokens or body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    asked = Request(
        conversation.messages,
        template_variables=conversation.variables,
        grammar=conversation.grammar,
        schema=schema,
        max_new_tokens=wanted or room_for(service, request, body, n_tokens(service, conversation)),
        logprobs=0 if logprobs is None and body.return_token_ids else logprobs,
        salt=salt_of(request, body.cache_salt),
        **body.options(),
    )
    answer = await service.submit(asked, conversation_of(request, body))
    shape = _Shape("chatcmpl-", "chat.completion", service, answer, body, chat=True)
    return await _answered(answer, shape, body, Speech(conversation, body.n))


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
            "id": prefix + answer.id,
            "created": int(time.time()),
            "model": service.name,
            "system_fingerprint": answer.fingerprint,
        }

    def whole(self, found: Sequence[Completion], speech: Speech) -> dict[str, Any]:
        choices = [
            self._choice(i, each, self._said(i, speech), speech) for i, each in enumerate(found)
        ]
        return {**self.head, "object": self.kind, "choices": choices, "usage": usage(found)}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = self.kind + (".chunk" if self.chat else "")
        return {**self.head, "object": kind, "choices": choices}

    def piece(self, index: int, parts: Sequence[Part], n_called: int) -> dict[str, Any]:
        """The piece of a stream that says and calls this, after so many calls."""
        text = "".join(part for part in parts if isinstance(part, str))
        calls = [part for part in parts if not isinstance(part, str)]
        delta: dict[str, Any] = {"content": text} if text or not calls else {}
        if calls:
            numbered = enumerate(calls, n_called - len(calls))
            delta["tool_calls"] = [{"index": i, **written(call)} for i, call in numbered]
        said = {"delta": delta} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": None}

    def end(self, index: int, completion: Completion, speech: Speech) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        return self._choice(index, completion, said, speech)

    def _choice(
        self, index: int, completion: Completion, said: dict[str, Any], speech: Speech
    ) -> dict[str, Any]:
        return {
            "index": index,
            **said,
            "logprobs": self._logprobs(completion),
            "finish_reason": _reason(completion, called=bool(speech.calls(index))),
            **extras(completion, self.body),
        }

    def _said(self, index: int, speech: Speech) -> dict[str, Any]:
        text, calls = speech.text(index), speech.calls(index)
        if not self.chat:
            return {"text": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message |= {"content": text or None, "tool_calls": list(map(written, calls))}
        return {"message": message}

    def _logprobs(self, completion: Completion) -> dict[str, Any] | None:
        asked = getattr(self.body, "logprobs", None)
        if completion.logprobs is None or asked in (None, False) or self.tokenizer is None:
            return None
        if self.chat:
            return {"content": _chat_logprobs(completion, self.tokenizer)}
        return text_logprobs(completion.ids, completion.logprobs, self.tokenizer)


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


async def _answered(answer: Answer, shape: _Shape, body: Sampled, speech: Speech) -> Any:
    if body.stream:
        return _streamed(answer, shape, body, speech)
    return shape.whole(await _ended(answer, speech), speech)


async def _ended(answer: Answer, speech: Speech) -> list[Completion]:
    """Waits for an answer and returns its samples, whose text and calls `speech` then has."""
    async for piece in answer.pieces():
        speech.push(piece)
    found = answer.finished()
    for i in range(len(found)):
        speech.end(i)
    return found


def _streamed(answer: Answer, shape: _Shape, body: Sampled, speech: Speech) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        if shape.chat:
            opened = [
                {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                for i in range(body.n)
            ]
            yield event(shape.chunk(opened))
        async for piece in answer.pieces():
            parts = speech.push(piece)
            if parts or body.return_token_ids:
                said = shape.piece(piece.sample, parts, len(speech.calls(piece.sample)))
                if body.return_token_ids:
                    said["token_ids"] = [] if piece.id is None else [piece.id]
                yield event(shape.chunk([said]))
        try:
            found = answer.finished()
        except ApiError as error:
            yield event({"error": {"message": error.message, "type": "api_error"}})
            return
        for i, each in enumerate(found):
            if rest := speech.end(i):
                yield event(shape.chunk([shape.piece(i, rest, len(speech.calls(i)))]))
            yield event(shape.chunk([shape.end(i, each, speech)]))
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


def _reason(completion: Completion, *, called: bool) -> str:
    if completion.finish_reason == "alarm":
        return "content_filter"
    if completion.finish_reason != "stop":
        return "length"
    return "tool_calls" if called else "stop"
