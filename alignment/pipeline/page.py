"""A run of Constitutional AI as a self-contained page."""

from __future__ import annotations

import json

from ...precision.charts import Canvas, Figure, Scale, figure, template
from .behaviour import Cell
from .page_charts import BEHIND, STAGES, insides_figure, path_figure, rounds_figure
from .result import CaiRun

BARS = {"before": "soft", "sl": "", "rl": "far"}
KEYS = {"before": "soft", "sl": "", "rl": "b"}
STOPPED = {
    "gate": "Labels no better than chance: nothing was trained on them",
    "merit": "A reward that knows no more than length and words: nothing was optimised",
}


def page(found: CaiRun) -> str:
    """Returns the page as HTML. It has no date: equal runs have equal pages."""
    return template(
        __package__, "report.html.j2", {"percent": percent, "number": number, "points": points}
    ).render(
        run=found,
        headline=headline(found),
        tone=tone(found),
        stages=STAGES,
        behind=BEHIND,
        refusals=_refusals(found),
        revisions=rounds_figure(found),
        path=path_figure(found.path),
        layers=[insides_figure(row) for row in found.insides],
        manifest=json.dumps(found.manifest, indent=2),
    )


def tone(found: CaiRun) -> str:
    """Returns "bad" for a run that was stopped, "good" where gated labels moved refusals beyond
    their interval, "plain" for anything else."""
    if found.stopped:
        return "bad"
    moved = found.cell(found.cells[-1].stage, found.cells[0].name).change_low > 0
    return "good" if moved and not found.manifest["ungated"] else "plain"


def headline(found: CaiRun) -> str:
    """Returns the finding in one sentence."""
    if found.stopped:
        return STOPPED[found.stopped]
    last = found.cells[-1].stage
    first = found.cells[0].name
    rate = {stage: found.cell(stage, first).refusal for stage in ("before", last)}
    said = f"{first}: {percent(rate['before'])} refused before, {percent(rate[last])} after"
    return f"UNGATED. {said}" if found.manifest["ungated"] else said


def percent(value: float | None) -> str:
    """A share in words, or a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: float | None) -> str:
    """A number in three digits, or a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def _refusals(found: CaiRun) -> Figure:
    """A bar with its interval for every cell and stage."""
    names = list(dict.fromkeys(cell.name for cell in found.cells))
    stages = list(dict.fromkeys(cell.stage for cell in found.cells))

    def draw(width: float) -> Canvas:
        step = 26 + 14 * len(stages)
        canvas = Canvas(width, step * len(names) + 10, "refusals of held-out prompts")
        x = Scale(0, 1, 4, width - 60)
        for i, name in enumerate(names):
            canvas.text(4, i * step + 14, name)
            for j, stage in enumerate(stages):
                _bar(canvas, x, found.cell(stage, name), i * step + 21 + 14.0 * j)
        return canvas

    rows = [
        (
            cell.name,
            STAGES[cell.stage],
            str(cell.n),
            percent(cell.refusal),
            f"{percent(cell.low)} to {percent(cell.high)}",
            points(cell.change, cell.change_low, cell.change_high),
            percent(cell.answer),
            percent(cell.nonsense),
            f"{cell.length:.0f}",
            percent(cell.boilerplate),
        )
        for cell in sorted(found.cells, key=lambda c: names.index(c.name))
    ]
    columns = (
        "prompts", "stage", "n", "refused", "95% interval", "change in points", "answered",
        "nonsense", "characters", "the most frequent answer",
    )  # fmt: skip
    caption = (
        "Shares of held-out prompts that were refused, with 95% intervals. Near misses and benign "
        "prompts should stay at zero; the second substance was never trained on."
    )
    legend = [(KEYS[stage], STAGES[stage]) for stage in stages]
    return figure("Refusals", caption, draw, columns, rows, legend)


def points(change: float, low: float, high: float) -> str:
    """A difference of shares with its interval, in points."""
    return f"{100 * change:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _bar(canvas: Canvas, x: Scale, cell: Cell, y: float) -> None:
    canvas.rect(x(0), y, max(1.0, x(cell.refusal) - x(0)), 9, f"bar {BARS[cell.stage]}")
    canvas.line(x(cell.low), y + 4.5, x(cell.high), y + 4.5, "axis")
    canvas.text(x(cell.high) + 4, y + 8, percent(cell.refusal))
