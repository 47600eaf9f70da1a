"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from ..faults import FAULTS
from ..tally import EDGES

_WIDTH, _HEIGHT, _GAP = 320.0, 92.0, 2.0


def page(contents: dict[str, Any]) -> str:
    """The page of a report's JSON."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files(__package__).joinpath("report.html.j2").read_text("utf-8")
    broken_first = sorted(contents["tests"], key=lambda test: bool(test["ok"]))
    tests = [test | {"bars": bars(test["histogram"])} for test in broken_first]
    summaries = {name: fault.summary for name, fault in FAULTS.items()}
    rendered: str = environment.from_string(text).render(
        contents | {"tests": tests, "summaries": summaries, "ticks": ticks()}
    )
    return rendered


def bars(histogram: list[int]) -> list[dict[str, float | str]]:
    """Bars of a histogram over `EDGES`, heights by the root so that rare errors stay visible."""
    most, total = max(histogram), sum(histogram)
    if not total:
        return []
    step = _WIDTH / len(histogram)
    found: list[dict[str, float | str]] = []
    for i, count in enumerate(histogram):
        height = _HEIGHT * (count / most) ** 0.5
        found.append(
            {
                "x": round(i * step + _GAP / 2, 2),
                "y": round(_HEIGHT - height, 2),
                "width": round(step - _GAP, 2),
                "height": round(height, 2),
                "label": f"{_interval(i, len(histogram))} ULP: {count} of {total}",
                "kind": "far" if _beyond_half(i, len(histogram)) else "near",
            }
        )
    return found


def ticks() -> list[dict[str, float | str]]:
    """Returns the places of -1, -1/2, 0, 1/2 and 1 ULP on the histogram's axis."""
    step = _WIDTH / (len(EDGES) + 1)
    shown = {-1.0: "−1", -0.5: "−½", 0.0: "0", 0.5: "½", 1.0: "1"}
    return [
        {"x": round((i + 1) * step, 2), "label": shown[edge]}
        for i, edge in enumerate(EDGES)
        if edge in shown
    ]


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
