"""Canaries may be looked at daily, and accuse at their level only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitlens.audit.evaluations import Canaries, EvaluationError, EvaluationRun
from bitlens.precision.statistics import clopper_pearson


def run(name: str, scores: list[float]) -> EvaluationRun:
    found = EvaluationRun(name)
    for i, score in enumerate(scores):
        found.add("canary", i, score)
    return found


def test_looking_every_day_accuses_at_the_level(tmp_path: Path) -> None:
    rng, runs, days = np.random.default_rng(0), 100, 20
    accused = tested = 0
    for i in range(runs):
        canaries = Canaries(tmp_path / f"{i}.jsonl", alpha=0.1)
        each_day = False
        for day in range(days):
            a, b = (rng.random((2, 12)) < 0.5).astype(float)
            canaries.add(run("a", a.tolist()), run(f"day {day}", b.tolist()))
            shift = (b - a).mean() / ((b - a).std(ddof=1) / np.sqrt(12) + 1e-12)
            each_day |= abs(float(shift)) > 1.8  # a t-test at .1, repeated every day
        accused += canaries.moved
        tested += each_day
    assert clopper_pearson(accused, runs, 0.999).low <= 0.1
    assert clopper_pearson(tested, runs, 0.999).low > 0.1  # the control


def test_a_change_is_seen_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "canaries.jsonl"
    reference = run("reference", [1.0] * 40)
    for day in range(3):
        canaries = Canaries(path)
        canaries.add(reference, run(f"day {day}", [1.0] * 40))
        assert not canaries.moved
        assert canaries.evidence == 1
        assert 0 in canaries.interval()
    broken = run("day 3", [0.0 if i % 2 else 1.0 for i in range(40)])
    canaries.add(reference, broken)
    again = Canaries(path)
    assert canaries.moved
    assert again.moved
    assert again.looks == 4
    assert again.evidence == canaries.evidence
    assert again.interval().high < 0
    with pytest.raises(EvaluationError, match="added before"):
        again.add(reference, broken)


def test_bad_files_and_scores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "canaries.jsonl"
    with pytest.raises(EvaluationError, match="lie in"):
        Canaries(path).add(run("a", [3.0, 0.0]), run("b", [0.0, 0.0]))
    assert not path.exists()
    path.write_text('{"look": "x", "differences": [2]}\n')
    with pytest.raises(EvaluationError, match="line 1: differences"):
        Canaries(path)
    with pytest.raises(ValueError, match="alpha"):
        Canaries(path, alpha=0)
