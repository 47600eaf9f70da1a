"""Figures that `compare` prints of planted runs: clusters, ties, missing ids, several tasks."""

from __future__ import annotations

import numpy as np
import pytest
from bitlens.audit import compare
from bitlens.audit.evaluations import Comparison, EvaluationRun
from bitlens.precision.statistics import clopper_pearson
from bitlens.precision.statistics.student import t_quantile

RUNS = 200


def planted(rng: np.random.Generator, effects: dict[str, float]) -> Comparison:
    """Scores of 0, a half or 1; only halves change, by `effects` in the mean over all items.

    How many rise and fall is a matter of the cluster. Each run lacks a tenth of the ids.
    """
    a, b = EvaluationRun("a"), EvaluationRun("b")
    for task, effect in effects.items():
        for cluster in range(40):
            rise = rng.beta(2, 6)  # a quarter in the mean
            fall = min(max(rng.beta(2, 6) - 6 * effect, 0.0), 1 - rise)
            for item in range(rng.integers(1, 7)):
                score = rng.choice([0.0, 0.5, 1.0])
                drawn = rng.random()
                moved = 0.5 if drawn < rise else -0.5 if drawn < rise + fall else 0.0
                other = score + moved if score == 0.5 else score
                key = f"{cluster}.{item}"
                for found, value in ((a, score), (b, other)):
                    if rng.random() < 0.9:
                        found.add(task, key, value, cluster=cluster)
    return compare(a, b, common=True, margin=0.5)


def test_intervals_hold_what_was_planted() -> None:
    """Without an effect, for each task and over all; the p-values have their size."""
    rng = np.random.default_rng(3)
    missed_task = missed_all = rejected_all = familywise = left_out = 0
    for _ in range(RUNS):
        found = planted(rng, {"x": 0.0, "y": 0.0, "z": 0.0})
        assert found.mcnemar_p is None
        left_out += found.left_out
        missed_task += not found.tasks[0].low <= 0 <= found.tasks[0].high
        missed_all += not found.low <= 0 <= found.high
        rejected_all += found.p < 0.05
        familywise += bool(found.worse or found.better)
    assert left_out > RUNS * 3
    for count in (missed_task, missed_all, rejected_all):
        assert 0.05 in clopper_pearson(count, RUNS, 0.999)
    # Holm bounds this error; independent tasks come close to it.
    assert clopper_pearson(familywise, RUNS, 0.999).low <= 0.05
    assert familywise > 0


def test_an_effect_is_covered_and_seen() -> None:
    rng, effect = np.random.default_rng(4), 0.04
    true = float(np.mean([_true_effect(rng, effect) for _ in range(200)]))
    found = [planted(rng, {"x": effect, "y": 0.0}) for _ in range(RUNS)]
    missed = sum(not each.tasks[0].low <= true <= each.tasks[0].high for each in found)
    assert 0.05 in clopper_pearson(missed, RUNS, 0.999)
    assert sum(each.better == ["x"] for each in found) > RUNS / 5
    # The control: the task's interval does not hold what was planted in the other.
    wrong = sum(not each.tasks[0].low <= -true <= each.tasks[0].high for each in found)
    assert clopper_pearson(wrong, RUNS, 0.999).low > 0.05


def _true_effect(rng: np.random.Generator, effect: float) -> float:
    """A sixth of what a cluster's halves rise more often than they fall."""
    rise, fall = rng.beta(2, 6, 4000), rng.beta(2, 6, 4000) - 6 * effect
    return float((rise - np.minimum(np.maximum(fall, 0), 1 - rise)).mean()) / 6


@pytest.mark.parametrize("clusters", [12, 60])
def test_the_detectable_effect_is_seen_at_its_power(clusters: int) -> None:
    """Differences of known spread: the effect that it states on average is seen in 80% of runs."""
    rng, spread, runs = np.random.default_rng(clusters), 0.2, 1500
    degrees, error = clusters - 1, spread / clusters**0.5
    effect = (t_quantile(0.975, degrees) + t_quantile(0.8, degrees)) * error
    seen, stated = 0, []
    for _ in range(runs):
        a, b = EvaluationRun("a"), EvaluationRun("b")
        for i, difference in enumerate(rng.normal(effect, spread, clusters)):
            a.add("task", i, 2.0)
            b.add("task", i, 2.0 + float(difference))
        found = compare(a, b)
        seen += found.p < 0.05
        stated.append(found.detectable)
    assert abs(seen / runs - 0.8) < 0.03 + 2 * (0.16 / runs) ** 0.5
    assert float(np.mean(stated)) == pytest.approx(effect, rel=0.05)
