"""The answers to look at until misrouting is seen, by formula and by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np

from ....precision.statistics import (
    EProcess,
    items_for_paired_difference,
    items_for_unpaired_difference,
    prompts_to_see_an_event,
)

ALPHA = 0.05
POWER = 0.8
CANARY_POWER = 0.95

_Z_ALPHA = NormalDist().inv_cdf(1 - ALPHA / 2)
_MOST_DISCORDANT = 60_000


@dataclass(frozen=True)
class Effect:
    """The effect that another pool has on a scored item.

    Attributes:
        accuracy: Share of items that the right pool answers well.
        lost, gained: Shares of all items that only the right, or only the wrong pool answers well.
    """

    accuracy: float
    lost: float
    gained: float


@dataclass(frozen=True)
class Detection:
    """One way of looking.

    Attributes:
        items: That the formula asks for, in all.
        power: With which it should see the misroutes on so many.
        simulated: Share of simulated runs of so many items that did see them.
        sequential: Items after which half of the simulated sequential tests had seen it, which
            may be looked at after every item; None for a method that has no such test, and where
            half had not by 60,000 items that change sides.
    """

    method: str
    items: int
    power: float
    simulated: float
    sequential: int | None = None


def canaries(rate: float, differs: Sequence[bool], *, runs: int = 2000, seed: int = 0) -> Detection:
    """Returns what comparing canaries bitwise needs: prompts whose answers are known, each asked
    in a conversation of its own.

    Args:
        differs: Whether each canary's answer differs between the pools.

    Raises ValueError if none does.
    """
    share = sum(differs) / len(differs)
    n = prompts_to_see_an_event(rate * share, CANARY_POWER)
    draws = np.random.default_rng(seed)
    asked = draws.integers(len(differs), size=(runs, n))
    seen = np.asarray(differs)[asked] & (draws.random((runs, n)) < rate)
    return Detection("canaries, bitwise", n, CANARY_POWER, float(seen.any(axis=1).mean()))


def paired(
    rate: float,
    effect: Effect,
    random_flips: float = 0.0,
    *,
    runs: int = 2000,
    sequential_runs: int = 10,
    seed: int = 0,
) -> Detection:
    """Returns what scoring the same items before and after needs.

    Args:
        random_flips: Share of items that change sides between two runs, in either direction
            equally and whatever the reason: 0 where bits are fixed, so that only misrouted ones do.

    Raises ValueError for an effect that loses no more than it gains.
    """
    shift = rate * (effect.lost - effect.gained)
    discordance = max(random_flips, rate * (effect.lost + effect.gained))
    n = items_for_paired_difference(shift, discordance, POWER, ALPHA)
    lost, gained = (discordance + shift) / 2, (discordance - shift) / 2
    draws = np.random.default_rng(seed)
    counts = draws.multinomial(n, [lost, gained, 1 - discordance], size=runs)[:, :2]
    b, c = counts[:, 0], counts[:, 1]
    seen = np.abs(b - c) > _Z_ALPHA * np.sqrt(b + c)
    found = median(_items_until_evidence(lost, gained, draws) for _ in range(sequential_runs))
    sequential = None if math.isinf(found) else round(found)
    name = f"paired scores, {random_flips:.0%} random flips" if random_flips else "paired scores"
    return Detection(name, n, POWER, float(seen.mean()), sequential)


def unpaired(rate: float, effect: Effect, *, runs: int = 2000, seed: int = 0) -> Detection:
    """Returns what scoring other items before and after needs, of both runs together.

    Raises ValueError for an effect that loses no more than it gains.
    """
    shift = rate * (effect.lost - effect.gained)
    after = effect.accuracy - shift
    n = items_for_unpaired_difference(shift, effect.accuracy, POWER, ALPHA)
    draws = np.random.default_rng(seed)
    p, q = (draws.binomial(n, rate, size=runs) / n for rate in (effect.accuracy, after))
    mean = (p + q) / 2
    seen = np.abs(p - q) > _Z_ALPHA * np.sqrt(2 * mean * (1 - mean) / n)
    return Detection("unpaired scores", 2 * n, POWER, float(seen.mean()))


def _items_until_evidence(lost: float, gained: float, draws: np.random.Generator) -> float:
    """Items until an e-process rejects "a change of sides is no more often a loss than a gain"."""
    process, items = EProcess(0.5), 0
    for _ in range(_MOST_DISCORDANT):
        items += int(draws.geometric(lost + gained))
        evidence = process.update(float(draws.random() * (lost + gained) < lost))
        if evidence >= 1 / ALPHA:
            return items
    return math.inf
