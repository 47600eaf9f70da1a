"""Thinking that helps by construction: docs/examples/scratchpad.py, its problems and its curve."""

from __future__ import annotations

import importlib.util
import random
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "scratchpad.py"


@pytest.fixture(scope="module")
def scratchpad() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scratchpad", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_problems_are_what_they_say(scratchpad: ModuleType) -> None:
    draws = random.Random(3)
    for _ in range(50):
        digits, sums, answer = scratchpad.problem(draws)
        totals = [sum(map(int, digits[: i + 1])) % 10 for i in range(len(digits))]
        assert sums == "".join(map(str, totals[1:]))
        assert answer == str(totals[-1]) == sums[-1]
    rows = scratchpad.training_rows(400)
    assert {len(row["prompt"].partition("<")[2]) for row in rows} == {0, 1, 2, 3, 4}
    assert all(row["completion"][-1].isdigit() for row in rows)


def test_a_curve_is_measured(scratchpad: ModuleType, tmp_path: Path) -> None:
    """After two steps the model knows nothing, whatever it may think."""
    points = scratchpad.thinking_curve(tmp_path, steps=2, problems=8).points
    assert [point.thinking for point in points] == list(range(scratchpad.DIGITS))
    assert all(point.single.mean < 0.9 for point in points)


@pytest.mark.nightly
def test_accuracy_rises_with_the_budget(scratchpad: ModuleType, tmp_path: Path) -> None:
    points = scratchpad.thinking_curve(tmp_path).points
    for before, after in pairwise(points):
        assert after.single.interval.high >= before.single.interval.low
    assert points[-1].single.interval.low - points[0].single.interval.high >= 0.3
