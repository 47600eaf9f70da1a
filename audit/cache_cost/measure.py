"""Seconds until the first token of a trace's requests, with the cache and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...model.config import ModelConfig
from ...model.serving import Engine, Request
from ...model.serving.intake import ServedModel
from ..context_cost.cost import context_cost
from .trace import TracedRequest


@dataclass(frozen=True)
class FirstTokens:
    """Seconds, request by request.

    Attributes:
        cached: Tokens that the engine took from its cache.
        with_cache, without: Until the first token.
    """

    cached: tuple[int, ...]
    with_cache: tuple[float, ...]
    without: tuple[float, ...]


def measure_first_tokens(
    model: ServedModel,
    requests: Sequence[TracedRequest],
    ttl: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FirstTokens:
    """Serves a trace twice, one request after another, by an engine and by one that forgets.

    The engine's clock is the trace's: what nobody used for `ttl` seconds of it is gone. Raises
    ValueError for a prompt beyond the model's context.
    """
    now = 0.0
    engine = Engine(model, ttl=ttl, clock=lambda: now)
    forgetful = Engine(model, clock=lambda: now)
    cached, found = [], []
    with engine, forgetful:
        for i, request in enumerate(requests):
            now = request.time
            asked = Request(list(request.ids), max_new_tokens=1, salt=request.salt)
            forgetful.cache.clear()
            (warm, n_cached), (cold, _) = (
                _first_token(engine, asked),
                _first_token(forgetful, asked),
            )
            cached.append(n_cached)
            found.append((warm, cold))
            progress(i + 1, len(requests))
    with_cache, without = zip(*found, strict=True)
    return FirstTokens(tuple(cached), with_cache, without)


def _first_token(engine: Engine, request: Request) -> tuple[float, int]:
    started = time.perf_counter()
    usage = engine.submit(request).result().usage
    return time.perf_counter() - started, usage.cached


def prefill_flops(config: ModelConfig, n_tokens: int, n_cached: int) -> int:
    """Returns the operations until the first token of a prompt whose first tokens are cached."""
    whole = context_cost(config, n_tokens).model_flops
    if n_cached == 0:
        return whole
    logits = 2 * config.d_model * config.d_vocab
    return whole - (context_cost(config, n_cached).model_flops - logits)
