"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import Any

from ..charts import Canvas, template
from ..faults import FAULTS
from ..tally import EDGES

_WIDTH, _HEIGHT, _GAP = 340.0, 92.0, 2.0
_TICKS = {-1.0: "−1", -0.5: "−½", 0.0: "0", 0.5: "½", 1.0: "1"}


def page(contents: dict[str, Any]) -> str:
    """The page of a report's JSON, broken tests first."""
    broken_first = sorted(contents["tests"], key=lambda test: bool(test["ok"]))
    tests = [test | {"drawing": histogram(test["histogram"])} for test in broken_first]
    summaries = {name: fault.summary for name, fault in FAULTS.items()}
    return template(__package__, "report.html.j2").render(
        contents | {"tests": tests, "summaries": summaries}
    )


def histogram(counts: list[int]) -> str:
    """Counts over `EDGES` as SVG, heights by the root so that rare errors stay visible; "" for
    none at all."""
    most, total = max(counts), sum(counts)
    if not total:
        return ""
    canvas = Canvas(_WIDTH, _HEIGHT + 20, "Histogram of signed errors in ULP")
    step = _WIDTH / len(counts)
    for i, count in enumerate(counts):
        height = _HEIGHT * (count / most) ** 0.5
        title = f"{_interval(i, len(counts))} ULP: {count} of {total}"
        class_ = "bar far" if _beyond_half(i, len(counts)) else "bar"
        x = i * step + _GAP / 2
        canvas.rect(x, _HEIGHT - height, step - _GAP, height, class_, title=title, radius=1)
    canvas.line(0, _HEIGHT, _WIDTH, _HEIGHT, "axis")
    for i, edge in enumerate(EDGES):
        if edge in _TICKS:
            canvas.text((i + 1) * step, _HEIGHT + 15, _TICKS[edge], anchor="middle")
    return str(canvas)


def _interval(i: int, n: int) -> str:
    if i == 0:
        return f"below {EDGES[0]:g}"
    if i == n - 1:
        return f"above {EDGES[-1]:g}"
    return f"{EDGES[i - 1]:g} to {EDGES[i]:g}"


def _beyond_half(i: int, n: int) -> bool:
    low = EDGES[i - 1] if i else float("-inf")
    high = EDGES[i] if i < n - 1 else float("inf")
    return high <= -0.5 or low >= 0.5
