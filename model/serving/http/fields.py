"""Fields that requests of both dialects have, and what they become."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ...generation.monitors import GenerationAlarm
from ...text.tools import Prepared, Tool, ToolChoice, prepare
from ..request import Completion, WrongPool
from .errors import ApiError
from .service import Service


class Body(BaseModel):
    """A request. A field that is not here is an error, never ignored.

    Attributes:
        top_k, min_p: Filters, as in `SamplingParams`.
        cache_salt: Requests share cached prompts with those of the same salt and key alone.
        return_token_ids: Also return ids, log-probabilities and seed of each answer.
        pool_fingerprint: Refuse unless a pool here has this `system_fingerprint`.
        conversation: A name by which the turns of a conversation stay in one pool.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    top_k: int | None = Field(default=None, ge=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    cache_salt: str | None = Field(default=None, max_length=256)
    return_token_ids: bool = False
    pool_fingerprint: str | None = None
    conversation: str | None = Field(default=None, max_length=256)


def require_model(service: Service, name: str) -> None:
    """Raises ApiError for another model than the one that is served."""
    if name != service.name:
        raise ApiError(404, f"model: {name!r} is not here, {service.name!r} is", "model")


def service_of(request: HttpRequest, body: Body) -> Service:
    """Returns the server of a request's model.

    Raises ApiError for another model, and for a request meant for a pool that is not here.
    """
    service: Service = request.app.state.service
    require_model(service, body.model)
    try:
        service.router.pool_for(0, fingerprint=body.pool_fingerprint)
    except WrongPool as error:
        raise ApiError(421, str(error), "pool_fingerprint") from error
    return service


def salt_of(request: HttpRequest, given: str | None) -> str:
    """Returns the salt of a request: its own, beside one that each key has."""
    return _of_key(request, given or "")


def conversation_of(request: HttpRequest, body: Body) -> str | None:
    """Returns the name of a request's conversation: its own, beside the key's."""
    return None if body.conversation is None else _of_key(request, body.conversation)


def _of_key(request: HttpRequest, name: str) -> str:
    key = getattr(request.state, "key", "")
    return hashlib.sha256(f"{key}\0{name}".encode()).hexdigest()


def room_for(service: Service, request: HttpRequest, body: Body, n_prompt: int) -> int:
    """Returns the tokens that an answer may have in the pool that such a prompt comes to."""
    named = conversation_of(request, body), body.pool_fingerprint
    return max(1, service.router.pool_for(n_prompt + 1, *named).context - n_prompt)


def prepared(
    service: Service,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Tool],
    choice: ToolChoice,
) -> Prepared:
    """Returns a conversation as the model's template takes it.

    Raises ApiError for tools that cannot be offered.
    """
    try:
        return prepare(service.router.model.tokenizer, messages, tools, choice)
    except ValueError as error:
        raise ApiError(400, str(error), "tools") from error


def n_tokens(service: Service, conversation: Prepared) -> int:
    """Returns the tokens of a conversation, its template's included.

    Raises ApiError for a model without a tokenizer, and for what its template refuses.
    """
    tokenizer = service.router.model.tokenizer
    if tokenizer is None:
        raise ApiError(400, "messages: this model has no tokenizer", "messages")
    try:
        return len(tokenizer.encode_chat(conversation.messages, **conversation.variables))
    except ValueError as error:
        raise ApiError(400, str(error), "messages") from error


def extras(completion: Completion, body: Body) -> dict[str, Any]:
    """Returns the fields of an answer that neither dialect has."""
    said: dict[str, Any] = {"seed": completion.seed}
    if completion.scores:
        said["alarms"] = [_written(alarm) for alarm in completion.alarms]
    if not body.return_token_ids:
        return said
    return said | {
        "prompt_token_ids": completion.prompt_ids,
        "token_ids": completion.ids,
        "token_logprobs": [first for first, *_ in completion.logprobs or []],
    }


def _written(alarm: GenerationAlarm) -> dict[str, Any]:
    """An alarm as a client reads it, without its token, which may be held back."""
    numbers = {"score": alarm.score, "threshold": alarm.threshold}
    return {
        "monitor": alarm.monitor,
        "position": alarm.position,
        # JSON has no infinity.
        **{name: x if math.isfinite(x) else None for name, x in numbers.items()},
        "decided_by": alarm.decided_by,
    }


def event(data: Mapping[str, Any] | str, name: str | None = None) -> str:
    """Returns a server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """Returns a response of server-sent events."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )
