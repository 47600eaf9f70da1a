"""Exact inference on a proportion."""

from __future__ import annotations

from dataclasses import dataclass

from .beta import beta_cdf, beta_quantile


@dataclass(frozen=True)
class Interval:
    """[low, high], which covers the true value with at least (or about) `confidence`."""

    low: float
    high: float
    confidence: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def binomial_at_most(successes: float, trials: float, rate: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, rate)."""
    if successes >= trials:
        return 1.0
    return 0.0 if successes < 0 else beta_cdf(1 - rate, trials - successes, successes + 1)


def clopper_pearson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 26, 1934).

    Counts need not be whole (an effective sample size is not). Raises ValueError for counts
    outside 0 <= successes <= trials, no trials, or a confidence outside (0, 1).
    """
    tail = (1 - _checked(successes, trials, confidence)) / 2
    low = beta_quantile(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = _upper(successes, trials, tail)
    return Interval(low, high, confidence)


def upper_bound(successes: float, trials: float, confidence: float = 0.95) -> float:
    """Returns an exact one-sided upper bound on the proportion; errors as `clopper_pearson`.

    Without successes it is 1 - (1 - confidence)^(1 / trials), at 95% about 3 / trials.
    """
    return _upper(successes, trials, 1 - _checked(successes, trials, confidence))


def _upper(successes: float, trials: float, tail: float) -> float:
    if successes == trials:
        return 1.0
    return beta_quantile(1 - tail, successes + 1, trials - successes)


def _checked(successes: float, trials: float, confidence: float) -> float:
    if not 0 <= successes <= trials or not trials > 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    return checked_confidence(confidence)


def checked_confidence(confidence: float) -> float:
    """Raises ValueError for a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence}: expected a number between 0 and 1")
    return confidence
