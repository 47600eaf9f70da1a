"""Two pools of one model, traffic that misses them, and what is seen of it.

An answer depends on its request and its pool alone. Each prompt is therefore answered once by each
pool, and traffic of any length is drawn from these answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ....model.serving import Completion, Pool, Request, Router, WrongPool, long_context
from ....model.transformer import HookedTransformer
from ...texts import texts
from .detection import Detection, Effect, canaries, paired, unpaired
from .incident import PUBLISHED, conversations_until, users_touched
from .movement import Movement, movement

INJECTED = 10_000
ANSWER_TOKENS = 16
TEXTS, TEXT_TOKENS = 64, 128
STRETCH = 4
RANDOM_FLIPS = 0.05

PUBLISHED_EFFECT = Effect(accuracy=0.39, lost=0.1875, gained=0.0625)
"""Arena-Hard 39 to 26.5 with YaRN of factor 4 on ordinary prompts (Qwen3 issue 1567): 12.5 points.
A quarter of the misrouted items are taken to change sides."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


@dataclass(frozen=True)
class RoutingReport:
    """The finding: what misrouting does, and how it shows.

    Attributes:
        short, long: The pools' fingerprints.
        injected, answered: Misroutes with the check on, and how many were answered.
        canaries: Prompts asked of both pools.
        logprobs_differ, text_differs: Shares of them whose log-probabilities, or whose text, do.
        movement: Over the texts.
        effect: Of the wrong pool on the next token, measured there.
        detection: By name of the effect and rate of misrouting, every way of looking.
        conversations: By rate, after how many of a user's conversations the published share of
            users has met a misroute; and the share of simulated users that has.
    """

    short: str
    long: str
    injected: int
    answered: int
    canaries: int
    logprobs_differ: float
    text_differs: float
    movement: Movement
    effect: Effect
    detection: dict[str, dict[float, tuple[Detection, ...]]]
    conversations: dict[float, tuple[float, float]]


def run_routing(
    model: HookedTransformer,
    prompts: Sequence[str],
    progress: Progress = lambda what, done, total: None,
    *,
    runs: int = 2000,
    sequential_runs: int = 10,
) -> RoutingReport:
    """Injects the published misroutes between the model's pool and one of YaRN with factor 4.

    Args:
        runs, sequential_runs: Simulated runs of each test.

    Raises ValueError for fewer than two prompts, and as `long_context`.
    """
    longer = long_context(model, STRETCH * model.config.n_ctx)
    asked = [Request(prompt, max_new_tokens=ANSWER_TOKENS, logprobs=0) for prompt in prompts]
    options = {"max_waiting": len(asked)}
    with Router([Pool("short", model, **options), Pool("long", longer, **options)]) as router:
        answered = _misroutes_answered(router, asked)
        short, long = (_answers(pool, asked, progress) for pool in router.pools)
        fingerprints = [pool.fingerprint for pool in router.pools]
    differs = [_logprobs(a) != _logprobs(b) for a, b in zip(short, long, strict=True)]
    length = min(TEXT_TOKENS, model.config.n_ctx // 2)
    written = texts(model, prompts[:TEXTS], length, seed=0, progress=_named("texts", progress))
    moved = movement(model, longer, written.tokens_NP, _named("both pools", progress))
    effect = _measured(moved)
    effects = {"published": PUBLISHED_EFFECT, "next token": effect}
    rates = (PUBLISHED.rate, PUBLISHED.worst_hour)
    detection = {
        name: {rate: _looked(rate, differs, each, runs, sequential_runs) for rate in rates}
        for name, each in effects.items()
    }
    needed = {rate: conversations_until(PUBLISHED.users, rate) for rate in rates}
    return RoutingReport(
        short=fingerprints[0],
        long=fingerprints[1],
        injected=INJECTED,
        answered=answered,
        canaries=len(prompts),
        logprobs_differ=sum(differs) / len(differs),
        text_differs=sum(a.ids != b.ids for a, b in zip(short, long, strict=True)) / len(prompts),
        movement=moved,
        effect=effect,
        detection=detection,
        conversations={rate: (n, users_touched(rate, round(n))) for rate, n in needed.items()},
    )


def _misroutes_answered(router: Router, asked: Sequence[Request]) -> int:
    """Sends requests on the way to one pool to the other; returns how many it took."""
    routes = [router.route(request) for request in asked]
    answered = 0
    for i in range(INJECTED):
        route = routes[i % len(routes)]
        (wrong,) = (pool for pool in router.pools if pool is not route.pool)
        with suppress(WrongPool):
            wrong.submit(route.request).cancel()
            answered += 1
    return answered


def _answers(pool: Pool, asked: Sequence[Request], progress: Progress) -> list[Completion]:
    """Answers to requests that name no pool, so that nothing checks where they came."""
    handles = [pool.submit(request) for request in asked]
    found = []
    for handle in handles:
        found.append(handle.result())
        progress(f"answers of the {pool.name} pool", len(found), len(handles))
    return found


def _named(what: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def _logprobs(completion: Completion) -> list[float]:
    return [first for first, *_ in completion.logprobs or []]


def _measured(moved: Movement) -> Effect:
    tokens = moved.tokens
    assert tokens.lost is not None
    assert tokens.gained is not None
    lost, gained = tokens.lost / tokens.positions, tokens.gained / tokens.positions
    return Effect(moved.accuracy, lost, gained)


def _looked(
    rate: float, differs: Sequence[bool], effect: Effect, runs: int, sequential_runs: int
) -> tuple[Detection, ...]:
    """Every way of looking that can see this effect."""
    found = [canaries(rate, differs, runs=runs)] if any(differs) else []
    if effect.lost > effect.gained:
        found += [
            paired(rate, effect, flips, runs=runs, sequential_runs=sequential_runs)
            for flips in (0.0, RANDOM_FLIPS)
        ]
        found.append(unpaired(rate, effect, runs=runs))
    return tuple(found)
