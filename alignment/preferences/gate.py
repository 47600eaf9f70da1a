"""The gate: labels that are no better than chance train nothing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics import clustered_proportion
from .label import Labels

BOUND = 0.55


class UngatedLabels(ValueError):
    """Labels whose accuracy is not shown to be above the bound were about to be trained on."""


@dataclass(frozen=True)
class Gate:
    """The accuracy of labels on pairs whose truth is known.

    Attributes:
        accuracy: The share that is right; a label of exactly a half is wrong.
        low, high: The one-sided 95% bounds, clustered.
        passed: Whether `low` is above `bound`.
        n, clusters: Labels, and groups of them that may depend on each other.
    """

    accuracy: float
    low: float
    high: float
    passed: bool
    n: int
    clusters: int
    bound: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)

    def require(self, *, ungated: bool = False) -> None:
        """Raises UngatedLabels where the gate stops the labels, unless `ungated`."""
        if not self.passed and not ungated:
            raise UngatedLabels(
                f"labels: {self.accuracy:.1%} of {self.n} are right; by the 95% bound at least "
                f"{self.low:.1%}, which has to pass {self.bound:.0%}: at chance, training on them "
                "would teach noise. Take a better judge, or ungated=True (--ungated), which every "
                "artefact then says"
            )


def gate(
    labels: Labels | Sequence[float],
    truth: Sequence[float],
    *,
    clusters: Sequence[Hashable],
    bound: float = BOUND,
) -> Gate:
    """Returns whether labels may be trained on: whether the one-sided 95% lower bound of their
    accuracy passes `bound`.

    Args:
        labels: Of a gate set, that no form was chosen on; or the probabilities of first answers.
        truth: The probability that the first answer is better, of each.
        clusters: Labels with the same entry may depend on each other, such as those of a prompt.

    Raises ValueError for lengths that differ, a truth of one class alone or of neither, and fewer
    than two clusters.
    """
    p_a = labels.p_a if isinstance(labels, Labels) else list(labels)
    if not len(p_a) == len(truth) == len(clusters):
        raise ValueError(
            f"gate: {len(p_a)} labels, {len(truth)} truths, {len(clusters)} clusters; one each"
        )
    if not all(0 <= t <= 1 and t != 0.5 for t in truth):
        raise ValueError("truth: expected probabilities on one side of a half")
    if len({t > 0.5 for t in truth}) == 1:
        raise ValueError(
            "truth: the first answer is the better one in all pairs or in none, so a judge that "
            "always says the same would look right; mix the orders"
        )
    hits = [(p - 0.5) * (t - 0.5) > 0 for p, t in zip(p_a, truth, strict=True)]
    found = clustered_proportion(hits, clusters, confidence=0.9)
    low, high = found.interval.low, found.interval.high
    return Gate(found.mean, low, high, low > bound, found.n, found.clusters, bound)
