"""Tokens per second of several models in turn, so that a slow minute hits them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..model.cache.kv_cache import KVCache
from ..model.transformer import HookedTransformer


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds, in tokens a second."""

    prefill: float
    decode: float


def measure(
    models: Mapping[str, HookedTransformer],
    *,
    n_prompt: int = 128,
    n_new: int = 16,
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Speed]:
    """Prefills `n_prompt` random tokens and decodes `n_new` greedily, every model in every round.

    One unmeasured round comes first. `progress` is called with (runs done, runs in all).
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    done = 0
    for round_ in range(rounds + 1):
        for name, model in models.items():
            timing = _time_once(model, n_prompt, n_new)
            if round_ > 0:
                seconds[name].append(timing)
            done += 1
            if progress is not None:
                progress(done, (rounds + 1) * len(models))
    return {
        name: Speed(
            prefill=n_prompt / statistics.median(prefill for prefill, _ in timings),
            decode=n_new / statistics.median(decode for _, decode in timings),
        )
        for name, timings in seconds.items()
    }


@torch.no_grad()
def _time_once(model: HookedTransformer, n_prompt: int, n_new: int) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    tokens_BP = torch.randint(model.config.d_vocab, (1, n_prompt), generator=generator)
    cache = KVCache(model.config, 1, model.ops.policy.activation)
    started = time.perf_counter()
    logits = model(tokens_BP, kv_cache=cache)
    prefilled = time.perf_counter()
    for _ in range(n_new):
        tokens_BP = logits[:, -1:].argmax(-1)
        logits = model(tokens_BP, kv_cache=cache)
    return prefilled - started, time.perf_counter() - prefilled
