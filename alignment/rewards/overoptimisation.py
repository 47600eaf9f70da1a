"""A reward that rises while what it stands for falls (Gao et al. 2022, arXiv:2210.10760)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics import clustered_mean


@dataclass(frozen=True)
class Point:
    """One policy on the way.

    Attributes:
        kl: Its distance from the first policy, in nats.
        reward: The mean reward of its answers.
        gold: The mean score of a judge that was not optimised.
    """

    kl: float
    reward: float
    gold: float


@dataclass(frozen=True)
class OverOptimisation:
    """A path of policies.

    Attributes:
        points: By their distance.
        best: The place of the point with the best gold score.
        loss, low, high: The gold score of that point less the last one's, with its paired 95%
            interval over prompts.
        gained: How much more reward the last point has.
        found: Whether the reward rose while the gold score fell, beyond chance.
    """

    points: list[Point]
    best: int
    loss: float
    low: float
    high: float
    gained: float
    found: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def over_optimisation(
    kl: Sequence[float],
    rewards: Sequence[Sequence[float]],
    gold: Sequence[Sequence[float]],
    *,
    prompts: Sequence[object] | None = None,
) -> OverOptimisation:
    """Looks for over-optimisation along a path of policies.

    The best point is chosen on every second prompt and compared with the last one on the others,
    so that choosing it does not favour it.

    Args:
        kl: The distance of each policy from the first, the first at 0.
        rewards, gold: A row a policy, a number a prompt, in the same order.
        prompts: What each prompt is clustered by; by default each is its own.

    Raises ValueError for fewer than two policies or four prompts, and rows of different lengths.
    """
    n = len(gold[0]) if gold else 0
    if len(kl) < 2 or n < 4 or {len(row) for row in (*rewards, *gold)} != {n}:
        raise ValueError("over_optimisation: expected two policies and four prompts, a row each")
    points = [
        Point(distance, _mean(r), _mean(g))
        for distance, r, g in zip(kl, rewards, gold, strict=True)
    ]
    choosing, judging = range(0, n, 2), range(1, n, 2)
    best = max(range(len(kl)), key=lambda i: _mean([gold[i][j] for j in choosing]))
    clusters = [j if prompts is None else prompts[j] for j in judging]
    lost = clustered_mean([gold[best][j] - gold[-1][j] for j in judging], clusters)
    gained = points[-1].reward - points[best].reward
    low, high = lost.interval.low, lost.interval.high
    return OverOptimisation(points, best, lost.mean, low, high, gained, low > 0 and gained > 0)


def best_of_n(
    rewards: Sequence[Sequence[float]], gold: Sequence[Sequence[float]], counts: Sequence[int]
) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Returns the path that choosing the best of n answers takes, for `over_optimisation`.

    Each prompt's value is the mean over all choices of n of its answers. The distance is
    ln n - (n - 1) / n (Stiennon et al. 2020).

    Args:
        rewards, gold: A row a prompt, a number an answer.
        counts: The n.
    """
    kl: list[float] = []
    of_reward: list[list[float]] = []
    of_gold: list[list[float]] = []
    for n in counts:
        kl.append(math.log(n) - (n - 1) / n)
        weights = [_chances(row, n) for row in rewards]
        for path, values in ((of_reward, rewards), (of_gold, gold)):
            path.append(
                [
                    math.fsum(w * v for w, v in zip(own, row, strict=True))
                    for own, row in zip(weights, values, strict=True)
                ]
            )
    return kl, of_reward, of_gold


def _chances(rewards: Sequence[float], n: int) -> list[float]:
    """The probability that each answer is the best of n drawn without replacement; of equals the
    first one is. Raises ValueError for n beyond the answers."""
    count = len(rewards)
    if not 1 <= n <= count:
        raise ValueError(f"n = {n}: there are {count} answers a prompt")
    order = sorted(range(count), key=lambda i: (-rewards[i], i))
    found = [0.0] * count
    for rank, i in enumerate(order):
        found[i] = math.comb(count - rank - 1, n - 1) / math.comb(count, n)
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
