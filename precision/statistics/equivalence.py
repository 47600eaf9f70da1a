"""Equivalence, tested: a margin is fixed first, then the data may show that it is not exceeded.

Two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987). A difference that is "not
significant" shows nothing; a plan's digest lets a reader check that the margin came first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

from .binomial import Interval
from .clustered import clustered_mean, clustered_proportion
from .student import t_cdf


@dataclass(frozen=True)
class EquivalencePlan:
    """The plan of a test, to be fixed before the data are seen.

    Attributes:
        quantity: What is measured, in words: "accuracy, b minus a" or "rate of token flips".
        margin: Differences strictly within +-margin count as equivalent.
        alpha: The probability of a wrong "equivalent", at most.

    Raises ValueError for a margin that is not positive and finite or alpha outside (0, 0.5).
    """

    quantity: str
    margin: float
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise ValueError(f"margin = {self.margin}: expected a positive number")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha = {self.alpha}: expected a number between 0 and 0.5")

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: publish it before the run."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def test(self, differences: Sequence[float], clusters: Sequence[Hashable]) -> Equivalence:
        """Whether the mean of paired differences lies within +-margin, clustered by prompt.

        Raises ValueError as `clustered_mean`.
        """
        estimate = clustered_mean(differences, clusters, 1 - 2 * self.alpha)
        degrees = estimate.clusters - 1
        p_value = max(
            _above(self.margin - abs(estimate.mean), estimate.standard_error, degrees),
            _above(self.margin + abs(estimate.mean), estimate.standard_error, degrees),
        )
        return Equivalence(self, estimate.mean, estimate.interval, p_value)

    def test_rate(self, hits: Sequence[bool], clusters: Sequence[Hashable]) -> Equivalence:
        """Whether a rate, which is 0 for identical runs, stays below the margin.

        A rate has one side: the test compares the upper end of the Korn-Graubard interval at
        1 - 2 alpha with the margin. Its p-value is the alpha at which that end meets the margin.
        """
        estimate = clustered_proportion(hits, clusters, 1 - 2 * self.alpha)
        low, high = 0.0, 0.5
        while low < (middle := (low + high) / 2) < high and high - low > 1e-12:
            upper = clustered_proportion(hits, clusters, 1 - 2 * middle).interval.high
            low, high = (low, middle) if upper < self.margin else (middle, high)
        p_value = high if high < 0.5 else 1.0
        return Equivalence(self, estimate.mean, estimate.interval, p_value)


@dataclass(frozen=True)
class Equivalence:
    """The outcome of a plan.

    Attributes:
        interval: At confidence 1 - 2 alpha: within the margin exactly if the test says equivalent.
    """

    plan: EquivalencePlan
    estimate: float
    interval: Interval
    p_value: float

    @property
    def equivalent(self) -> bool:
        """Never "different": False says only that the data do not show equivalence."""
        return self.p_value < self.plan.alpha


def _above(distance: float, standard_error: float, degrees: int) -> float:
    """P-value that the true mean is beyond a margin which lies `distance` past the estimate."""
    if standard_error == 0:
        return 0.0 if distance > 0 else 1.0
    return t_cdf(-distance / standard_error, degrees)
