"""Minutes that the tests of each folder took, beside their budget in CONTRIBUTING.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROW = re.compile(r"^\| `(tests(?:/\w+)?)` \| ([\d.]+) \|", re.MULTILINE)


def budgets(page: Path) -> dict[str, float]:
    """Returns the minutes that the page allows each folder."""
    return {folder: float(minutes) for folder, minutes in ROW.findall(page.read_text())}


def folder_of(test: str) -> str:
    """Returns the folder that a test's id counts for: tests/NAME, or tests for one beside them."""
    parts = test.partition("::")[0].split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def spent(durations: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns minutes by folder, the most first, of tests' ids and seconds."""
    total: dict[str, float] = {}
    for test, seconds in durations:
        folder = folder_of(test)
        total[folder] = total.get(folder, 0.0) + seconds / 60
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def lines(durations: Iterable[tuple[str, float]], allowed: dict[str, float]) -> list[str]:
    """Returns a line a folder, with a mark where it exceeds its budget."""
    found = spent(durations)
    rows = [
        f"{minutes:6.2f} of {allowed.get(folder, 0):g} minutes  {folder}"
        + ("  OVER BUDGET" if minutes > allowed.get(folder, 0) else "")
        for folder, minutes in found.items()
    ]
    return [*rows, f"{sum(found.values()):6.2f} of {sum(allowed.values()):g} minutes  in all"]
