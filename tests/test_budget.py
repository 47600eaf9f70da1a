"""The tests' budget: every folder has one, and what exceeds it is marked."""

from __future__ import annotations

from pathlib import Path

import bitlens
from support.budget import budgets, folder_of, lines

ROOT = Path(bitlens.__file__).resolve().parent
LONGEST = 450
"""Lines of a file, tests included."""


def test_every_folder_has_a_budget() -> None:
    allowed = budgets(ROOT / "CONTRIBUTING.md")
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert {folder_of(file) for file in files} == set(allowed)
    assert sum(allowed.values()) <= 30


def test_what_exceeds_its_budget_is_marked() -> None:
    durations = [
        ("tests/a/test_x.py::test_1[p::q]", 30.0),
        ("tests/a/b/test_y.py::test_2", 45.0),
        ("tests/test_z.py::test_3", 60.0),
    ]
    assert lines(durations, {"tests/a": 1.0, "tests": 2.0}) == [
        "  1.25 of 1 minutes  tests/a  OVER BUDGET",
        "  1.00 of 2 minutes  tests",
        "  2.25 of 3 minutes  in all",
    ]


def test_no_file_is_long() -> None:
    files = [
        path
        for path in ROOT.rglob("*.py")
        if not {"build", ".venv"} & set(path.relative_to(ROOT).parts)
    ]
    assert len(files) > 500
    long = {path.relative_to(ROOT).as_posix() for path in files if _n_lines(path) > LONGEST}
    assert not long


def _n_lines(path: Path) -> int:
    return path.read_text().count("\n")
