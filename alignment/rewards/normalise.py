"""Rewards of several kinds, each in units of its own spread on a fixed set, and their sum.

A raw sum belongs to whoever has the largest numbers: multiply one reward by 100 and nothing else
counts. Normalised, the weights mean what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WEIGHTS = {"harmlessness": 0.4, "helpfulness": 0.3, "honesty": 0.2, "coherence": 0.1}
"""The weights that are taken where none are given."""

Rewards = Mapping[str, Sequence[float]]
"""The rewards of the same answers, by what they are for."""


@dataclass(frozen=True)
class Normaliser:
    """The mean and the spread of each reward on a fixed set."""

    moments: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, rewards: Rewards) -> Normaliser:
        """Measures rewards of a fixed set of answers.

        Raises ValueError for a reward that is the same for all of them, or no finite number.
        """
        moments = {}
        for name, values in rewards.items():
            if not values or not all(map(math.isfinite, values)):
                raise ValueError(f"reward {name!r}: expected finite numbers, at least one")
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
            if spread == 0:
                raise ValueError(
                    f"reward {name!r}: {values[0]} for every answer of the fixed set, so it tells "
                    "none from another; leave it out"
                )
            moments[name] = mean, spread
        return cls(moments)

    def normalised(self, rewards: Rewards) -> dict[str, list[float]]:
        """Returns rewards in units of their spread, 0 at the mean of the fixed set.

        Raises ValueError for other rewards than those that were measured.
        """
        if set(rewards) != set(self.moments):
            raise ValueError(
                f"rewards: {', '.join(sorted(rewards))}; the fixed set had "
                f"{', '.join(sorted(self.moments))}"
            )
        return {
            name: [(value - self.moments[name][0]) / self.moments[name][1] for value in values]
            for name, values in rewards.items()
        }


def weighted_sum(rewards: Rewards, weights: Mapping[str, float]) -> list[float]:
    """Returns the weighted sum of each answer's rewards; of raw ones, where they are raw.

    Raises ValueError for weights that are negative or all 0, or of other rewards.
    """
    if set(rewards) != set(weights) or not all(0 <= w < math.inf for w in weights.values()):
        raise ValueError(
            f"weights: {dict(weights)}; expected a number from 0 for each of "
            f"{', '.join(sorted(rewards))}"
        )
    if not any(weights.values()):
        raise ValueError("weights: all are 0")
    names = sorted(rewards)
    columns = zip(*(rewards[name] for name in names), strict=True)
    return [
        math.fsum(weights[n] * value for n, value in zip(names, row, strict=True))
        for row in columns
    ]
