"""The gate: judges of planted accuracy are stopped and let through at the rates of the binomial."""

from __future__ import annotations

import random

import pytest
import scipy.stats
from bitlens.alignment import UngatedLabels, gate

PAIRS, SIMULATIONS = 150, 1000
TRUTH = [float(i % 2) for i in range(PAIRS)]


def least_hits() -> int:
    """How many of the pairs have to be right, by scipy's exact test."""
    test = scipy.stats.binomtest
    return next(
        k for k in range(PAIRS)
        if test(k, PAIRS).proportion_ci(0.9, method="exact").low > 0.55
    )  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "low", "high"),
    [(0.50, 0, 0.01), (0.55, 0.01, 0.05), (0.60, 0.2, 0.5), (0.70, 0.95, 1)],
)
def test_judges_pass_at_the_rate_of_the_binomial(accuracy: float, low: float, high: float) -> None:
    """One in twenty at the bound itself, at most; of a judge at chance fewer than one in 100."""
    draws, passed = random.Random(f"gate {accuracy}"), 0
    for _ in range(SIMULATIONS):
        right = [draws.random() < accuracy for _ in range(PAIRS)]
        labels = [t if hit else 1 - t for t, hit in zip(TRUTH, right, strict=True)]
        passed += gate(labels, TRUTH, clusters=range(PAIRS)).passed
    expected = float(scipy.stats.binom.sf(least_hits() - 1, PAIRS, accuracy))
    assert scipy.stats.binomtest(passed, SIMULATIONS, expected).pvalue > 1e-3
    assert low <= expected <= high


def test_labels_of_one_prompt_count_less() -> None:
    """Ten copies of the same fifteen labels say no more than fifteen."""
    truth = [float(i % 2) for i in range(15)]
    labels = [t if i % 5 else 1 - t for i, t in enumerate(truth)]
    independent = gate(labels * 10, truth * 10, clusters=range(150))
    clustered = gate(labels * 10, truth * 10, clusters=list(range(15)) * 10)
    assert independent.passed
    assert not clustered.passed
    assert clustered.low < independent.low - 0.1
    assert clustered.low == pytest.approx(gate(labels, truth, clusters=range(15)).low, abs=0.05)


def test_a_tie_is_wrong() -> None:
    assert gate([0.5] * PAIRS, TRUTH, clusters=range(PAIRS)).accuracy == 0


def test_what_is_stopped_raises_unless_it_is_asked_for() -> None:
    stopped = gate([0.5] * PAIRS, TRUTH, clusters=range(PAIRS))
    with pytest.raises(UngatedLabels, match="has to pass 55%"):
        stopped.require()
    stopped.require(ungated=True)
    gate(TRUTH, TRUTH, clusters=range(PAIRS)).require()


@pytest.mark.parametrize(
    ("labels", "truth", "clusters", "message"),
    [
        ([0.9], [1.0, 0.0], [0, 1], "1 labels, 2 truths, 2 clusters"),
        ([0.9, 0.9], [1.0, 1.0], [0, 1], "in all pairs or in none"),
        ([0.9, 0.9], [1.0, 0.5], [0, 1], "one side of a half"),
        ([0.9, 0.9], [1.0, 0.0], [0, 0], "needs at least two"),
    ],
)
def test_bad_gate_sets_are_named(
    labels: list[float], truth: list[float], clusters: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gate(labels, truth, clusters=clusters)
