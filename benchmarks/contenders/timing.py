"""Seconds of a call, and the prompts every contender gets.

Processor seconds are those of all of the process's threads: with one thread they say what wall time
says on an idle machine, and say it on a busy one, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch

Clock = Literal["wall", "processor"]

_NOW = {"wall": time.perf_counter, "processor": time.process_time}


def seconds(call: Callable[[], object], clock: Clock = "wall") -> float:
    """Seconds of one call."""
    now = _NOW[clock]
    started = now()
    call()
    return now() - started


def seconds_per_call(call: Callable[[], object], at_least: float, clock: Clock = "wall") -> float:
    """Seconds of a call: the mean of as many as fill `at_least` of them, after a warm-up."""
    call()
    calls, total = 1, seconds(call, clock)
    while total < at_least:
        more = max(1, min(calls, round(calls * (at_least / total - 1))))
        total += seconds(lambda: [call() for _ in range(more)], clock)  # noqa: B023
        calls += more
    return total / calls


def prompt(d_vocab: int, n_tokens: int, batch: int = 1) -> torch.Tensor:
    """The same random token ids for everyone, int64 [batch, n_tokens]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(d_vocab, (batch, n_tokens), generator=generator)
