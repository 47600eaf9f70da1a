"""Five ways of looking at a deployment: the items that each needs, by formula and by simulation.

A share of the requests meets the fault. What an item then shows is drawn from real results, so a
deployment of any number of items is a sum of few kinds of differences, drawn at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ....precision.statistics import (
    clopper_pearson,
    items_for_paired_difference,
    items_for_unpaired_difference,
    prompts_to_see_an_event,
)
from .results import Results

ALPHA = 0.001
POWER = 0.8
DEPLOYMENTS = 200

_SIZES = tuple(2 ** (i / 6) for i in range(-9, 10))
"""Parts of the predicted size that are simulated."""

_MOST_ITEMS = 10**15
_FEW_CHANGES = 100

Floats = npt.NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], npt.NDArray[np.bool_]]
"""(items, generator) -> which of the simulated deployments were noticed."""


@dataclass(frozen=True)
class Look:
    """A way of looking at one fault, at one share of requests.

    Attributes:
        predicted: Items that its formula asks for; None where it cannot see the fault.
        noticed: Simulates deployments of so many items.
    """

    predicted: int | None
    noticed: Draw


@dataclass(frozen=True)
class Seen:
    """The items until a fault is noticed with probability `POWER`.

    Attributes:
        predicted: By formula; None where this way of looking cannot see the fault.
        share: Of simulated deployments of so many items, those that noticed.
        measured: The fewest items, of the simulated sizes, of which `POWER` of deployments noticed;
            None where none did.
        low, high: The sizes at which the simulated share's 95% interval holds `POWER`.
    """

    predicted: int | None
    share: float | None = None
    measured: int | None = None
    low: int | None = None
    high: int | None = None

    @property
    def agrees(self) -> bool:
        """Returns whether the predicted size is among those that the simulation allows."""
        if self.predicted is None or self.low is None or self.high is None:
            return False
        return self.low <= self.predicted <= self.high


def simulate(look: Look, draws: np.random.Generator) -> Seen:
    """Returns what simulated deployments of many sizes show."""
    if look.predicted is None:
        return Seen(None)
    sizes = sorted({max(1, round(look.predicted * part)) for part in _SIZES})
    shares = {n: float(look.noticed(n, draws).mean()) for n in sizes}
    enough = [n for n, share in shares.items() if share >= POWER]
    allowed = [n for n, share in shares.items() if _allows(share)]
    if not allowed and enough:  # few items come in steps, and one of them passes over POWER
        allowed = [max((n for n in sizes if n < enough[0]), default=enough[0]), enough[0]]
    return Seen(
        look.predicted,
        shares[look.predicted],
        enough[0] if enough else None,
        min(allowed, default=None),
        max(allowed, default=None),
    )


def _allows(share: float) -> bool:
    """Whether a simulated share is compatible with POWER."""
    interval = clopper_pearson(share * DEPLOYMENTS, DEPLOYMENTS)
    return interval.low <= POWER <= interval.high


def unpaired_accuracy(sound: Results, faulty: Results, rate: float) -> Look:
    """Two accuracies of as many items each, of different items, drawn at temperature 1."""
    p = float(sound.right.mean())
    q = (1 - rate) * p + rate * float(faulty.right.mean())
    predicted = None
    if p != q and 0 < p < 1:
        predicted = items_for_unpaired_difference(abs(p - q), max(p, q), POWER, ALPHA)

    def noticed(n: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
        a, b = (draws.binomial(n, share, size=DEPLOYMENTS) / n for share in (p, q))
        variance = (a * (1 - a) + b * (1 - b)) / n
        return _beyond(a - b, variance)

    return Look(predicted, noticed)


def paired_with_noise(sound: Results, faulty: Results, rate: float) -> Look:
    """The same items before and after, each answered with a seed of its own."""
    p, f = sound.right.mean(axis=1), faulty.right.mean(axis=1)
    q = (1 - rate) * p + rate * f
    return _mcnemar(float((p * (1 - q)).mean()), float(((1 - p) * q).mean()))


def paired_with_fixed_bits(sound: Results, faulty: Results, rate: float) -> Look:
    """The same items before and after with the same seed: only the fault changes an answer."""
    lost = float((sound.right & ~faulty.right).mean())
    gained = float((~sound.right & faulty.right).mean())
    return _mcnemar(rate * lost, rate * gained)


def log_probability(sound: Results, faulty: Results, rate: float) -> Look:
    """The log-probability of the right answer to the same items, by a paired t-test."""
    change = faulty.logprob - sound.logprob
    moved = change != 0
    values = np.append(change[moved], 0.0)
    shares = np.append(np.full(int(moved.sum()), rate / len(change)), 0.0)
    shares[-1] = max(0.0, 1 - shares.sum())
    mean = float(shares @ values)
    predicted = _size(_items_of_t_test(values, shares)) if mean != 0 else None

    def noticed(n: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
        counts = draws.multinomial(n, shares, size=DEPLOYMENTS)
        means = counts @ values / n
        squares = counts @ values**2 / n
        return _beyond(means, np.maximum(squares - means**2, 0) / max(n - 1, 1))

    return Look(predicted, noticed)


def canary_bits(sound: Results, faulty: Results, rate: float) -> Look:
    """Prompts whose answers are known to the bit: one that differs is enough."""
    share = rate * float((sound.canary != faulty.canary).any(axis=1).mean())
    predicted = 1 if share == 1 else prompts_to_see_an_event(share, POWER) if share else None

    def noticed(n: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
        return np.asarray(draws.binomial(n, share, size=DEPLOYMENTS) > 0)

    return Look(predicted, noticed)


LOOKS: dict[str, Callable[[Results, Results, float], Look]] = {
    "unpaired accuracy": unpaired_accuracy,
    "paired accuracy, sampling noise": paired_with_noise,
    "paired accuracy, fixed bits": paired_with_fixed_bits,
    "log-probability": log_probability,
    "bits of canaries": canary_bits,
}
"""The ways of looking, the noisiest first."""


def _mcnemar(lost: float, gained: float) -> Look:
    def noticed(n: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
        kinds = [lost, gained, max(0.0, 1 - lost - gained)]
        counts = draws.multinomial(n, kinds, size=DEPLOYMENTS)
        b, c = counts[:, 0], counts[:, 1]
        return _beyond(b - c, b + c)

    return Look(_size(_items_of_mcnemar(lost, gained)) if lost != gained else None, noticed)


def _items_of_mcnemar(lost: float, gained: float) -> float:
    """Items of which McNemar's test shows the difference; counted out where few change sides."""
    effect, discordance = abs(lost - gained), lost + gained
    n = items_for_paired_difference(effect, discordance, POWER, ALPHA)
    if n * discordance > _FEW_CHANGES:
        return n
    changes = np.arange(3 * _FEW_CHANGES)
    b, c = changes[:, None], changes[None, :]
    seen = _beyond(b - c, b + c)
    low, high = 1, 2 * n
    while low < high:
        middle = (low + high) // 2
        weights = _poisson(middle * lost, changes)[:, None] * _poisson(middle * gained, changes)
        low, high = (low, middle) if (weights * seen).sum() >= POWER else (middle + 1, high)
    return low


def _poisson(mean: float, counts: npt.NDArray[np.int64]) -> Floats:
    """The probability of each count."""
    from scipy.special import gammaln, xlogy  # takes 0.4 s to import

    return np.asarray(np.exp(xlogy(counts, mean) - mean - gammaln(counts + 1)))


def _items_of_t_test(values: Floats, shares: Floats) -> float:
    """Items of which a t-test shows that the mean is not 0, for values that need not be normal.

    Its statistic has mean sqrt(n) mean / deviation and a variance that skewness and kurtosis move,
    for a sample with a smaller mean has a smaller deviation, too.
    """
    mean = float(shares @ values)
    centred = values - mean
    deviation = math.sqrt(float(shares @ centred**2))
    if deviation == 0:
        return 2
    skewness = float(shares @ centred**3) / deviation**3
    kurtosis = float(shares @ centred**4) / deviation**4
    ratio = mean / deviation
    variance = max(0.0, 1 - skewness * ratio + (kurtosis - 1) * ratio**2 / 4)
    return ((_reach() + NormalDist().inv_cdf(POWER) * math.sqrt(variance)) / ratio) ** 2


def _beyond(difference: npt.NDArray[Any], variance: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each difference is further from 0 than chance takes it at level ALPHA."""
    return np.asarray(np.abs(difference) > _reach() * np.sqrt(variance))


def _size(items: float) -> int | None:
    """A whole number of items; None beyond what anyone asks."""
    return max(2, round(items)) if items <= _MOST_ITEMS else None


def _reach() -> float:
    return NormalDist().inv_cdf(1 - ALPHA / 2)
