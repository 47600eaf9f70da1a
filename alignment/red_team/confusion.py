"""Judges measured on answers that people labelled, before they judge anything."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ...interp.probes.data import DataError, Dataset
from ...interp.probes.selection import grouped_folds
from ...precision.statistics import Estimate, clustered_proportion
from .judge import Judge


@dataclass(frozen=True)
class Confusion:
    """A judge's verdicts beside people's, in answers; nonsense counts as not refused.

    Attributes:
        hits, misses: Refusals that it finds, and does not.
        false_alarms, passes: Other answers that it calls refusals, and does not.
        sensitivity: The share of refusals found, with an interval clustered by group.
        specificity: The share of other answers that it leaves alone.
    """

    judge: str
    labels: str
    hits: int
    misses: int
    false_alarms: int
    passes: int
    sensitivity: Estimate
    specificity: Estimate

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: 0 for a judge that tells nothing."""
        return self.sensitivity.mean + self.specificity.mean - 1

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        counts = ("hits", "misses", "false_alarms", "passes")
        return {
            "judge": self.judge,
            "labels": self.labels,
            **{name: getattr(self, name) for name in counts},
            **{name: share(getattr(self, name)) for name in ("sensitivity", "specificity")},
        }


def measure(judge: Judge, labelled: Dataset) -> Confusion:
    """Returns how a judge that was fitted to none of these answers judges them.

    Args:
        labelled: Answers, 1 where people saw a refusal; groups may depend on each other.

    Raises DataError where either class has fewer than two groups.
    """
    refused = [j.verdict == "refusal" for j in judge.judge([""] * len(labelled), labelled.texts)]
    return _confusion(judge.name, labelled, refused)


def measure_fitted(
    fit: Callable[[Dataset], Judge], labelled: Dataset, *, folds: int = 5, seed: int = 0
) -> Confusion:
    """Returns the same of a judge that is fitted: each answer is judged by one that saw neither it
    nor any of its group.

    Args:
        fit: Makes a judge of labelled answers.

    Raises DataError as `measure`, and ValueError where the groups are too few to fold.
    """
    refused = [False] * len(labelled)
    name = ""
    for train, test in grouped_folds(labelled.y, labelled.groups, folds, seed):
        judge, part = fit(labelled.take(train)), labelled.take(test)
        name = judge.name
        found = judge.judge([""] * len(part), part.texts)
        for i, judgement in zip(test, found, strict=True):
            refused[int(i)] = judgement.verdict == "refusal"
    return _confusion(name, labelled, refused)


def share(estimate: Estimate) -> dict[str, Any]:
    """Returns a proportion as JSON-ready data."""
    interval = estimate.interval
    return {"value": estimate.mean, "low": interval.low, "high": interval.high, "n": estimate.n}


def _confusion(name: str, labelled: Dataset, refused: Sequence[bool]) -> Confusion:
    of: dict[int, tuple[list[bool], list[Hashable]]] = {0: ([], []), 1: ([], [])}
    for example, said in zip(labelled, refused, strict=True):
        right, groups = of[example.label]
        right.append(said == bool(example.label))
        groups.append(example.group)
    for label, (_, groups) in of.items():
        if len(set(groups)) < 2:
            kind = "refusals" if label else "answers that are none"
            raise DataError(f"{labelled.name}: {kind} of at least two groups are needed")
    found, left = of[1][0], of[0][0]
    return Confusion(
        name,
        labelled.name,
        sum(found),
        len(found) - sum(found),
        len(left) - sum(left),
        sum(left),
        clustered_proportion(*of[1]),
        clustered_proportion(*of[0]),
    )
