"""What `compare` prints is true: exact where it says so, and at its level in simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from bitlens.audit import compare, plan
from bitlens.audit.evaluations import EvaluationError, EvaluationRun
from bitlens.audit.evaluations.comparison import holm
from bitlens.precision.statistics import (
    clopper_pearson,
    exchange_test,
    items_for_paired_difference,
    items_for_unpaired_difference,
    mcnemar,
    power_of_paired_difference,
)
from hypothesis import given
from hypothesis import strategies as st


def run(
    scores: Sequence[float], clusters: Sequence[int] | None = None, name: str = "run"
) -> EvaluationRun:
    found = EvaluationRun(name)
    for i, score in enumerate(scores):
        found.add("task", i, score, cluster=None if clusters is None else int(clusters[i]))
    return found


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_without_clusters_it_is_mcnemar(lost: int, gained: int, same: int) -> None:
    differences = [-1] * lost + [1] * gained + [0] * same
    found = exchange_test(differences, range(len(differences)))
    assert found == pytest.approx(mcnemar(lost, gained), rel=1e-9)


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 5)), max_size=12))
def test_with_clusters_it_is_enumeration(rows: list[tuple[int, int]]) -> None:
    clusters = sorted({c for _, c in rows})
    sums = [sum(d for d, c in rows if c == cluster) for cluster in clusters]
    signed = [
        abs(sum(s * t for s, t in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    share = sum(value >= abs(sum(sums)) for value in signed) / len(signed)
    found = exchange_test([d for d, _ in rows], [c for _, c in rows])
    assert found == pytest.approx(share, rel=1e-12)


def _simulated(
    rng: np.random.Generator, effect: float, clusters: int = 40, each: int = 5
) -> tuple[list[float], list[float], list[int]]:
    """Answers that resemble each other within a cluster, in both runs."""
    ease = np.repeat(rng.beta(1, 1, clusters), each)
    wobble = np.repeat(rng.normal(0, 0.4, clusters), each)  # what a run does to a whole cluster
    a = rng.random(clusters * each) < ease
    b = rng.random(clusters * each) < np.clip(ease + wobble + effect, 0, 1)
    return a.tolist(), b.tolist(), np.repeat(np.arange(clusters), each).tolist()


def test_size_and_coverage_hold_with_clusters() -> None:
    rng = np.random.default_rng(0)
    runs, rejected, rejected_t, covered, wrong = 400, 0, 0, 0, 0
    for _ in range(runs):
        a, b, clusters = _simulated(rng, 0.0)
        found = compare(run(a, clusters), run(b, clusters), margin=0.08)
        assert found.mcnemar_p is not None
        rejected += found.mcnemar_p < 0.05
        rejected_t += found.t_p < 0.05
        covered += found.low <= 0 <= found.high
        items = exchange_test([int(y) - int(x) for x, y in zip(a, b, strict=True)], range(len(a)))
        wrong += items < 0.05
    for count in (rejected, rejected_t, runs - covered):
        assert 0.05 in clopper_pearson(count, runs, 0.999)
    # The control: taking items as independent accuses too often.
    assert clopper_pearson(wrong, runs, 0.999).low > 0.05


def test_equivalence_is_wrongly_shown_at_its_level() -> None:
    """Scores whose true difference is the margin itself."""
    rng, runs, shown = np.random.default_rng(1), 400, 0
    for _ in range(runs):
        a = rng.normal(0.5, 0.1, 60)
        b = a + rng.normal(0.03, 0.1, 60)
        found = compare(run(a.tolist()), run(b.tolist()), margin=0.03)
        assert found.mcnemar_p is None
        assert found.p == found.t_p
        shown += found.passed
    assert 0.05 in clopper_pearson(shown, runs, 0.999)


@pytest.mark.parametrize(
    ("effect", "discordance", "alpha"), [(0.02, 0.05, 0.05), (0.02, 0.02, 0.05), (0.04, 0.2, 0.001)]
)
def test_planned_items_have_the_planned_power(
    effect: float, discordance: float, alpha: float
) -> None:
    """Against McNemar's chi-squared, whose approximation it is, within three points."""
    items = items_for_paired_difference(effect, discordance, 0.8, alpha)
    assert power_of_paired_difference(items, effect, discordance, alpha) == pytest.approx(
        0.8, abs=0.02
    )
    rng = np.random.default_rng(2)
    lost, gained = (discordance + effect) / 2, (discordance - effect) / 2
    counts = rng.multinomial(items, [lost, gained, 1 - discordance], size=20_000)
    changed = np.maximum(counts[:, 0] + counts[:, 1], 1)
    chi = (counts[:, 0] - counts[:, 1]) ** 2 / changed
    from scipy.stats import chi2

    seen = float((chi > chi2.isf(alpha, 1)).mean())
    expected = power_of_paired_difference(items, effect, discordance, alpha)
    if discordance > effect:
        assert seen == pytest.approx(expected, abs=0.03)
    else:
        assert seen >= expected - 0.03


def test_published_sizes() -> None:
    """0.8% misrouted times 12.5 points is 0.1 point."""
    effect = 0.008 * 0.125
    assert items_for_paired_difference(effect, 2 * effect) == 15_695
    assert items_for_paired_difference(effect, 0.05) == 392_442
    assert items_for_paired_difference(effect, 2 * effect, alpha=0.001) == pytest.approx(
        34_149, rel=2e-4
    )
    assert items_for_paired_difference(effect, 0.05, alpha=0.001) == pytest.approx(
        853_732, rel=1e-5
    )
    found = plan(effect, 0.05)
    assert found.items == 392_442
    assert found.unpaired_items == items_for_unpaired_difference(effect, 0.5)


def test_the_same_run_twice_differs_in_nothing() -> None:
    scores = [i % 3 == 0 for i in range(300)]
    found = compare(run(scores), run(scores), margin=0.01)
    assert (found.difference, found.low, found.high, found.mcnemar_p) == (0, 0, 0, 1)
    assert found.passed
    assert found.tost_p == 0
    assert found.unpaired_error > 0.03
    # Six changed items, all one way, are what the exact test needs at .05.
    assert 6 / 300 < found.detectable < 10 / 300


def test_a_shift_of_every_score_is_seen() -> None:
    found = compare(run([0.5, 0.25, 0.75]), run([0.25, 0.0, 0.5]))
    assert found.difference == -0.25
    assert found.t_p == 0
    assert not found.passed


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_controls_every_subset(p_values: list[float]) -> None:
    """By its definition as a closed test with Bonferroni's test in each subset."""
    indices = range(len(p_values))
    for i, adjusted in enumerate(holm(p_values)):
        subsets = [
            s
            for n in range(1, len(p_values) + 1)
            for s in itertools.combinations(indices, n)
            if i in s
        ]
        closed = max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets)
        assert adjusted == pytest.approx(closed)


def test_tasks_are_judged_apart_and_together() -> None:
    a, b = EvaluationRun("a"), EvaluationRun("b")
    for i in range(200):
        a.add("kept", i, i % 2 == 0)
        b.add("kept", i, i % 2 == 0)
        a.add("broken", i, True)
        b.add("broken", i, i % 5 != 0)
    found = compare(a, b)
    assert found.worse == ["broken"]
    assert found.items == 400
    assert not found.passed
    kept, broken = found.tasks
    assert (kept.difference, broken.difference) == (0, pytest.approx(-0.2))
    assert broken.holm_p == pytest.approx(2 * broken.p)
    assert found.difference == pytest.approx(-0.1)
    assert math.isfinite(found.as_dict()["detectable"])


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ({"t": {1: 1, 2: 0}}, {"t": {1: 1, 3: 0}}, "alone has"),
        ({"t": {1: 1, 2: 0}, "u": {1: 1}}, {"t": {1: 1, 2: 0}}, "task"),
        ({"t": {1: 1}}, {"t": {1: 1}}, "one cluster"),
        ({"t": {1: 1}}, {"u": {1: 1}}, "only one of the runs"),
    ],
)
def test_what_does_not_pair_is_refused(
    a: dict[str, dict[int, int]], b: dict[str, dict[int, int]], said: str
) -> None:
    runs = []
    for name, tasks in (("a", a), ("b", b)):
        found = EvaluationRun(name)
        for task, items in tasks.items():
            for key, score in items.items():
                found.add(task, key, score)
        runs.append(found)
    with pytest.raises(EvaluationError, match=said):
        compare(*runs)


def test_missing_items_are_left_out_when_asked_for_and_counted() -> None:
    a, b = run([1, 0, 1, 1]), run([1, 0, 1])
    found = compare(a, b, common=True)
    assert (found.items, found.left_out) == (3, 1)


def test_other_prompts_under_one_id_are_refused() -> None:
    a, b = EvaluationRun("a"), EvaluationRun("b")
    for found, prompt in ((a, "x"), (b, "y")):
        found.add("t", 1, 1, prompt=prompt)
        found.add("t", 2, 0, prompt="z")
    with pytest.raises(EvaluationError, match="different things under one id"):
        compare(a, b)


@pytest.mark.parametrize("bad", [{"margin": 0.0}, {"margin": -1.0}, {"alpha": 0.0}, {"alpha": 0.7}])
def test_bad_plans_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        compare(run([1, 0]), run([1, 0]), **bad)


@pytest.mark.parametrize(
    ("effect", "discordance"),
    [(0.0, 0.1), (0.2, 0.1), (-0.1, 0.1), (0.1, 1.5), (float("nan"), 0.1)],
)
def test_effects_that_cannot_be_are_refused(effect: float, discordance: float) -> None:
    with pytest.raises(ValueError, match=r"effect|discordance"):
        plan(effect, discordance)
