"""The number of items that an effect needs, said before the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics.paired import (
    items_for_paired_difference,
    items_for_unpaired_difference,
)


@dataclass(frozen=True)
class EvaluationPlan:
    """The sizes that an effect needs.

    Attributes:
        items: Items that both runs answer, compared one by one.
        unpaired_items: Items of each run where two accuracies and their errors are compared, at the
            accuracy that is the hardest, one half.
    """

    effect: float
    discordance: float
    alpha: float
    power: float
    items: int
    unpaired_items: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return asdict(self)


def plan(
    effect: float, discordance: float | None = None, alpha: float = 0.05, power: float = 0.8
) -> EvaluationPlan:
    """Returns the number of items that show a difference of `effect` between two runs.

    Args:
        effect: The difference of accuracies to be seen: 0.01 is one point.
        discordance: The share of items that one run gets right and the other wrong, noise included:
            two runs of the same model at temperature 1 tell it. Default: twice the effect, about
            what a fault alone changes where bits are fixed.
        alpha, power: Level of the two-sided test, and the probability of seeing the effect.

    Raises ValueError for numbers outside their ranges.
    """
    share = min(1.0, 2 * effect) if discordance is None else discordance
    return EvaluationPlan(
        effect,
        share,
        alpha,
        power,
        items_for_paired_difference(effect, share, power, alpha),
        items_for_unpaired_difference(effect, max(0.5, effect), power, alpha),
    )
