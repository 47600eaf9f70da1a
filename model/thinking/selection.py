"""One answer out of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

Answer = TypeVar("Answer")


def vote(answers: Sequence[Answer | None]) -> Answer | None:
    """Returns the answer that most samples gave, the one given first of those that tie.

    Samples without an answer (None) have no vote; without any vote it is None.
    """
    return weighted_vote(answers, [1.0] * len(answers))


def weighted_vote(answers: Sequence[Answer | None], weights: Sequence[float]) -> Answer | None:
    """Returns the answer whose samples' weights have the largest sum, the first of equals.

    Raises ValueError for lengths that differ, and for weights that are negative or not finite: a
    log-probability is none, its exponential is.
    """
    _require_as_many(answers, weights)
    if not all(weight >= 0 and math.isfinite(weight) for weight in weights):
        raise ValueError(
            "weights: expected finite numbers from 0 on; of log-probabilities take exp"
        )
    totals: dict[Answer, list[float]] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals.setdefault(answer, []).append(weight)
    return max(totals, key=lambda answer: math.fsum(totals[answer])) if totals else None


def best(answers: Sequence[Answer | None], scores: Sequence[float]) -> Answer | None:
    """Returns the answer of the highest score, the first of equals; None where none is given.

    Raises ValueError for lengths that differ and for a score that is NaN.
    """
    _require_as_many(answers, scores)
    if any(math.isnan(score) for score in scores):
        raise ValueError("scores: one is NaN")
    given = [i for i, answer in enumerate(answers) if answer is not None]
    return answers[max(given, key=lambda i: scores[i])] if given else None


def _require_as_many(answers: Sequence[object], values: Sequence[float]) -> None:
    if len(answers) != len(values):
        raise ValueError(f"{len(answers)} answers and {len(values)} scores: expected as many")
