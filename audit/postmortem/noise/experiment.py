"""Every fault, met by some share of requests, looked at in every way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ....model.transformer import HookedTransformer
from ..routing.incident import PUBLISHED
from .deployments import FAULTS, SOUND
from .looking import LOOKS, Seen, simulate
from .results import Results, answers

RATES = (PUBLISHED.rate, PUBLISHED.worst_hour, 1.0)
"""Shares of requests that meet the fault: the published ones, and all."""

_TIMED = 16
"""Items that say how long one takes."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


@dataclass(frozen=True)
class Finding:
    """One fault of a deployment.

    Attributes:
        fault: Its name.
        accuracy: Share of draws that are the right answer, where every request meets it.
        lost, gained: Shares of draws that are right without it alone, and with it alone, at the
            same noise.
        logprob: Mean change of the right answer's log-probability, nats.
        canaries: Share of prompts whose bits differ.
        seen: By share of requests and way of looking, the items until it is noticed.
    """

    fault: str
    accuracy: float
    lost: float
    gained: float
    logprob: float
    canaries: float
    seen: dict[float, dict[str, Seen]]


@dataclass(frozen=True)
class NoiseReport:
    """The findings on all faults.

    Attributes:
        items: Prompts, each without its last token, which is the right answer.
        accuracy: Of the deployment without a fault.
        seconds: Of one item, answered alone.
        findings: By fault.
    """

    items: int
    accuracy: float
    seconds: float
    findings: tuple[Finding, ...]


def run_noise(
    model: HookedTransformer,
    prompts: Sequence[str],
    progress: Progress = lambda what, done, total: None,
    *,
    rates: Sequence[float] = RATES,
) -> NoiseReport:
    """Asks a model all prompts, without a fault and with each; simulates what is noticed.

    Raises ValueError for prompts of fewer than two tokens or none, for rates outside (0, 1], and as
    `long_context`.
    """
    if not rates or not all(0 < rate <= 1 for rate in rates):
        raise ValueError(f"rates = {list(rates)}: expected shares of requests in (0, 1]")
    seconds = _seconds_an_item(model, prompts)
    sound, *faulty = answers(
        model, [SOUND, *FAULTS], prompts, lambda done, total: progress("prompts", done, total)
    )
    draws = np.random.default_rng(0)
    findings = [
        _finding(fault.name, sound, found, rates, draws)
        for fault, found in zip(FAULTS, faulty, strict=True)
    ]
    return NoiseReport(len(prompts), float(sound.right.mean()), seconds, tuple(findings))


def _finding(
    name: str,
    sound: Results,
    faulty: Results,
    rates: Sequence[float],
    draws: np.random.Generator,
) -> Finding:
    seen = {
        rate: {way: simulate(look(sound, faulty, rate), draws) for way, look in LOOKS.items()}
        for rate in rates
    }
    return Finding(
        fault=name,
        accuracy=float(faulty.right.mean()),
        lost=float((sound.right & ~faulty.right).mean()),
        gained=float((~sound.right & faulty.right).mean()),
        logprob=float((faulty.logprob - sound.logprob).mean()),
        canaries=float((sound.canary != faulty.canary).any(axis=1).mean()),
        seen=seen,
    )


def _seconds_an_item(model: HookedTransformer, prompts: Sequence[str]) -> float:
    some = prompts[:_TIMED]
    began = time.perf_counter()
    answers(model, [SOUND], some)
    return (time.perf_counter() - began) / len(some)
