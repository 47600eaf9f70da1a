"""Did the model move, or the evaluation? Two runs compared item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...precision.statistics import EquivalencePlan, clustered_mean, exchange_test
from ...precision.statistics.binomial import binomial_at_most
from ...precision.statistics.student import t_cdf, t_quantile
from .items import EvaluationError, EvaluationRun
from .pairing import Pairs, pair
from .read import read_run

POWER = 0.8
"""The probability at which an effect counts as one that the items could have shown."""


@dataclass(frozen=True)
class TaskComparison:
    """One task's two runs, b against a.

    Attributes:
        items, clusters: What is compared, and in how many groups that may depend on each other.
        left_out: Items of one run only.
        score_a, score_b: Mean scores.
        difference, low, high: Mean of b minus a with its paired, clustered interval.
        lost, gained: Items whose score fell, and rose.
        standard_error: Of the difference, paired and clustered.
        unpaired_error: What two runs' own errors, as harnesses print them, would give instead.
        mcnemar_p: Exact p-value of "as many are lost as are gained", by exchange of the two runs in
            whole clusters; None where a score is neither right nor wrong.
        t_p: Clustered t-test's p-value of "no difference".
        p: mcnemar_p, or t_p where there is none.
        holm_p: The same, adjusted for the number of tasks (Holm, 1979).
        tost_p: p-value of "they differ by the margin or more", None without a margin.
        detectable: The smallest true difference that these items show with probability 0.8.
    """

    task: str
    items: int
    clusters: int
    left_out: int
    score_a: float
    score_b: float
    difference: float
    low: float
    high: float
    lost: int
    gained: int
    standard_error: float
    unpaired_error: float
    mcnemar_p: float | None
    t_p: float
    p: float
    holm_p: float
    tost_p: float | None
    detectable: float


@dataclass(frozen=True)
class Comparison(TaskComparison):
    """All items together, and each task.

    Attributes:
        margin, alpha: What was fixed before.
        tasks: One comparison a task, in the order of run a.
    """

    margin: float | None
    alpha: float
    tasks: tuple[TaskComparison, ...]

    @property
    def worse(self) -> list[str]:
        """Tasks on which b is worse, beyond chance and the number of tasks."""
        return [t.task for t in self.tasks if t.difference < 0 and t.holm_p < self.alpha]

    @property
    def better(self) -> list[str]:
        """Tasks on which b is better, beyond chance and the number of tasks."""
        return [t.task for t in self.tasks if t.difference > 0 and t.holm_p < self.alpha]

    @property
    def not_shown_equivalent(self) -> list[str]:
        """Tasks whose difference is not shown to lie within the margin; empty without a margin."""
        return [t.task for t in self.tasks if t.tost_p is not None and t.tost_p >= self.alpha]

    @property
    def passed(self) -> bool:
        """With a margin: every task is shown to be equivalent. Without: none is worse."""
        return not (self.worse if self.margin is None else self.not_shown_equivalent)

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        verdicts = ("worse", "better", "not_shown_equivalent", "passed")
        return {**asdict(self), **{name: getattr(self, name) for name in verdicts}}


def compare(
    a: EvaluationRun | str | Path,
    b: EvaluationRun | str | Path,
    *,
    margin: float | None = None,
    alpha: float = 0.05,
    metric: str | None = None,
    common: bool = False,
) -> Comparison:
    """Compares run b with run a, item by item.

    Args:
        a, b: Runs, or files and folders that `read_run` takes.
        margin: The largest difference that does not matter, in the score's units, fixed before the
            runs are seen; with it, equivalence is tested (two one-sided tests).
        alpha: Level of each test; intervals are at 1 - alpha.
        metric: Which of a harness's metrics or scorers to compare; otherwise the first.
        common: Leaves out items and tasks that only one run has, and counts them.

    Raises EvaluationError where a file cannot be read, the runs do not pair, or there are fewer
    than two clusters; ValueError for a margin that is not positive or alpha outside (0, 0.5).
    """
    plan = EquivalencePlan("mean score, b minus a", 1.0 if margin is None else margin, alpha)
    a = a if isinstance(a, EvaluationRun) else read_run(a, metric)
    b = b if isinstance(b, EvaluationRun) else read_run(b, metric)
    pairs = pair(a, b, common=common)
    for task, items in pairs.items():
        if len(set(items.clusters)) < 2:
            raise EvaluationError(f"task {task!r}: one cluster of items: an interval needs two")
    tested = None if margin is None else plan
    tasks = [_compared(task, items, alpha, tested) for task, items in pairs.items()]
    adjusted = holm([task["p"] for task in tasks])
    parts = tuple(TaskComparison(**task, holm_p=p) for task, p in zip(tasks, adjusted, strict=True))
    whole = _compared("all tasks", _together(pairs), alpha, tested)
    return Comparison(**whole, holm_p=whole["p"], margin=margin, alpha=alpha, tasks=parts)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number, in order (Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _together(pairs: dict[str, Pairs]) -> Pairs:
    return Pairs(
        [score for p in pairs.values() for score in p.a],
        [score for p in pairs.values() for score in p.b],
        [(task, cluster) for task, p in pairs.items() for cluster in p.clusters],
        sum(p.left_out for p in pairs.values()),
    )


def _compared(
    task: str, pairs: Pairs, alpha: float, plan: EquivalencePlan | None
) -> dict[str, Any]:
    differences = pairs.differences
    mean = clustered_mean(differences, pairs.clusters, 1 - alpha)
    ours = clustered_mean(pairs.a, pairs.clusters, 1 - alpha)
    theirs = clustered_mean(pairs.b, pairs.clusters, 1 - alpha)
    binary = {*pairs.a, *pairs.b} <= {0.0, 1.0}
    whole = [int(d) for d in differences] if binary else []
    mcnemar_p = exchange_test(whole, pairs.clusters) if binary else None
    t_p = _t_p(mean.mean, mean.standard_error, mean.clusters - 1)
    return {
        "task": task,
        "items": mean.n,
        "clusters": mean.clusters,
        "left_out": pairs.left_out,
        "score_a": ours.mean,
        "score_b": theirs.mean,
        "difference": mean.mean,
        "low": mean.interval.low,
        "high": mean.interval.high,
        "lost": sum(d < 0 for d in differences),
        "gained": sum(d > 0 for d in differences),
        "standard_error": mean.standard_error,
        "unpaired_error": math.hypot(ours.standard_error, theirs.standard_error),
        "mcnemar_p": mcnemar_p,
        "t_p": t_p,
        "p": t_p if mcnemar_p is None else mcnemar_p,
        "tost_p": None if plan is None else plan.test(differences, pairs.clusters).p_value,
        "detectable": _detectable(mean.standard_error, mean.clusters, alpha),
    }


def _t_p(mean: float, error: float, degrees: int) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return min(1.0, 2 * t_cdf(-abs(mean) / error, degrees))


def _detectable(error: float, clusters: int, alpha: float) -> float:
    """Returns (t_(1 - alpha/2) + t_power) standard errors. Where no item changed, the smallest
    share of changed clusters, all one way, that the exact test would have rejected at this power.
    """
    if error > 0:
        degrees = clusters - 1
        return (t_quantile(1 - alpha / 2, degrees) + t_quantile(POWER, degrees)) * error
    needed = math.ceil(1 + math.log2(1 / alpha))  # 2 * 2^-needed <= alpha
    if needed > clusters:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        seen = 1 - binomial_at_most(needed - 1, clusters, middle)
        low, high = (middle, high) if seen < POWER else (low, middle)
    return high
