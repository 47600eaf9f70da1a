"""Figures of scores against labels, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...precision.statistics import Interval, clopper_pearson

Array = npt.NDArray[np.float64]

FALSE_POSITIVE_RATES = (0.05, 0.01, 0.001)
ROC_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
N_RESAMPLES = 2000
N_BINS = 10


@dataclass(frozen=True)
class Proportion:
    """A share of counts and its exact 95% interval (Clopper and Pearson)."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.of

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the value."""
        return {"value": self.value, **asdict(self)}


@dataclass(frozen=True)
class Operating:
    """The effect of a threshold on labelled conversations.

    Attributes:
        target: The false-positive rate that the threshold is meant to have.
        false_positives: Negatives above it.
        recall: Positives above it.
    """

    target: float
    threshold: float
    false_positives: Proportion
    recall: Proportion

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as JSON holds them."""
        return {
            "target_fpr": self.target,
            "threshold": self.threshold,
            "fpr": self.false_positives.to_dict(),
            "recall": self.recall.to_dict(),
        }


def auroc(scores: Array, y: Array) -> float:
    """Returns the probability that a positive outscores a negative, ties counting half.

    Raises ValueError where a class is missing.
    """
    positive = y == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("auroc: expected examples of both classes")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def proportion(count: int, of: int) -> Proportion:
    """Returns a share with its interval. Raises ValueError where `of` is 0."""
    found = clopper_pearson(count, of)
    return Proportion(count, of, found.low, found.high)


def threshold_at(benign: Array, rate: float) -> float:
    """Returns the smallest of the benign scores that at most `rate` of them exceed.

    Raises ValueError for a rate outside [0, 1), and for no scores.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"false-positive rate {rate}: expected at least 0 and below 1")
    if not len(benign):
        raise ValueError("a threshold needs benign conversations")
    return float(np.sort(benign)[::-1][math.floor(rate * len(benign))])


def operating(scores: Array, y: Array, threshold: float, target: float) -> Operating:
    """Returns what a threshold does to labelled scores. Raises ValueError for a threshold that is
    no number."""
    if math.isnan(threshold):
        raise ValueError("the threshold is not a number")
    above = scores > threshold
    negative, positive = y == 0, y == 1
    return Operating(
        target,
        threshold,
        proportion(int(above[negative].sum()), int(negative.sum())),
        proportion(int(above[positive].sum()), int(positive.sum())),
    )


def recall_at(scores: Array, y: Array, rate: float) -> Operating:
    """Returns the operating point whose threshold the negatives among these scores set."""
    return operating(scores, y, threshold_at(scores[y == 0], rate), rate)


def roc(scores: Array, y: Array) -> list[tuple[float, float]]:
    """Returns true-positive rates at `ROC_RATES`, as pairs (false-positive rate, recall)."""
    negative, positive = scores[y == 0], scores[y == 1]
    return [(rate, float((positive > threshold_at(negative, rate)).mean())) for rate in ROC_RATES]


def brier(p: Array, y: Array) -> float:
    """Returns the mean squared error of probabilities."""
    return float(np.square(p - y).mean())


def reliability(p: Array, y: Array, n_bins: int = N_BINS) -> list[tuple[float, float, int]]:
    """Returns mean probability, share of positives and number of each bin; bins hold equally many
    conversations of ascending probability."""
    order = np.argsort(p, kind="stable")
    bins = [b for b in np.array_split(order, n_bins) if len(b)]
    return [(float(p[b].mean()), float(y[b].mean()), len(b)) for b in bins]


def calibration_error(p: Array, y: Array, n_bins: int = N_BINS) -> float:
    """Returns the expected calibration error over `reliability`'s bins."""
    return sum(n * abs(mean - share) for mean, share, n in reliability(p, y, n_bins)) / len(p)


def resampled(
    scores: Sequence[Array], y: Array, groups: Sequence[str], seed: int = 0
) -> npt.NDArray[np.float64]:
    """Returns the AUROC of each list of scores on each of `N_RESAMPLES` draws of whole groups, fp64
    [lists, draws]. The draws are paired; those without both classes are drawn again."""
    names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    owner = np.array([names[g] for g in groups])
    generator = np.random.default_rng(seed)
    times = np.empty((0, len(y)))
    while len(times) < N_RESAMPLES:
        picked = generator.integers(len(names), size=(N_RESAMPLES, len(names)))
        counts = np.stack([np.bincount(p, minlength=len(names)) for p in picked])[:, owner]
        both = (counts @ y > 0) & (counts @ (1 - y) > 0)
        times = np.concatenate([times, counts[both]])[:N_RESAMPLES]
    return np.stack([_weighted_auroc(s, y, times) for s in scores])


def _weighted_auroc(scores: Array, y: Array, times: Array) -> Array:
    """AUROC where each conversation counts as often as a row of `times` [draws, B] says."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of equal scores
    weight, target = times[:, order], y[order]
    positive = np.add.reduceat(weight * target, starts, axis=1)
    negative = np.add.reduceat(weight * (1 - target), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    found: Array = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
    return found


def percentile_interval(draws: Array, confidence: float = 0.95) -> Interval:
    """Returns the percentile interval of bootstrap draws."""
    tail = (1 - confidence) / 2
    return Interval(
        float(np.quantile(draws, tail)), float(np.quantile(draws, 1 - tail)), confidence
    )


def with_interval(value: float, draws: Array) -> dict[str, float]:
    """Returns a figure and the `percentile_interval` of its draws, as JSON holds them."""
    interval = percentile_interval(draws)
    return {"value": value, "low": interval.low, "high": interval.high}
