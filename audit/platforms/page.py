"""An `EquivalenceReport` as a self-contained page. What a model or a user wrote is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from ...precision.charts import Canvas, Figure, figure, log_scale, template
from .grades import Grade
from .report import EquivalenceReport, PlatformRow


def page(report: EquivalenceReport, made: Sequence[tuple[str, str]]) -> str:
    """Returns the page as HTML. `made` says how: names and what they were, such as the command."""
    run = [row for row in report.rows if row.ratio is not None]
    bad = any(row.first_violation or row.is_different for row in run)
    return template(__package__, "report.html.j2").render(
        report=report,
        headline=headline(report),
        tone="bad" if bad else "good" if _all_shown(report) else "plain",
        figure=_ratios(report, run) if run else None,
        run=run,
        grades=[(grade.name.lower().replace("_", " "), grade.words) for grade in reversed(Grade)],
        made=made,
    )


def headline(report: EquivalenceReport) -> str:
    """Returns the finding in one sentence."""
    shown = sum(row.grade >= Grade.EQUIVALENT for row in report.rows)
    different = [row.platform for row in report.rows if row.is_different]
    wrong = [row.platform for row in report.rows if row.first_violation]
    parts = [f"{shown} of {len(report.rows)} platforms run the same model"]
    if different:
        parts.append(f"{', '.join(different)}: different")
    if wrong:
        parts.append(f"{', '.join(wrong)}: a violation")
    return "; ".join(parts)


def _all_shown(report: EquivalenceReport) -> bool:
    return all(row.grade >= Grade.EQUIVALENT for row in report.rows)


def _ratios(report: EquivalenceReport, rows: Sequence[PlatformRow]) -> Figure:
    """Each platform's error over its policy's own, with the interval and the margin."""
    margin = report.margin
    values = [v for row in rows for v in (row.ratio_low, row.ratio_high) if v is not None]

    def draw(width: float) -> Canvas:
        left, step = 132.0, 24.0
        canvas = Canvas(width, step * len(rows) + 40, "Error over the policy's own error")
        x = log_scale([*values, margin, 1 / margin], left, width - 16)
        bottom = step * len(rows) + 8
        for value, label in x.ticks():
            canvas.line(x(value), 4, x(value), bottom, "grid")
            canvas.text(x(value), bottom + 18, label, anchor="middle")
        for value in (1 / margin, margin):
            canvas.line(x(value), 4, x(value), bottom, "limit")
        for i, row in enumerate(rows):
            assert row.ratio is not None
            assert row.ratio_low is not None
            assert row.ratio_high is not None
            y = step * i + 18
            title = f"{row.platform}: {row.ratio:.3g} [{row.ratio_low:.3g}, {row.ratio_high:.3g}]"
            canvas.text(left - 8, y + 4, row.platform, anchor="end")
            canvas.line(x(row.ratio_low), y, x(row.ratio_high), y, "series a")
            canvas.circle(x(row.ratio), y, 4, "dot a", title=title)
        return canvas

    return figure(
        "Error over that of the policy's own rounding",
        "Root mean square over all log-probabilities against fp64, geometric mean over prompts, "
        f"with the interval of the test at level {report.alpha:g}; red: the margin, fixed before.",
        draw,
        ("platform", "ratio", "low", "high", "p (margin)"),
        [
            (
                row.platform,
                *(f"{v:.4g}" for v in (row.ratio, row.ratio_low, row.ratio_high, row.tost_p)
                  if v is not None),
            )
            for row in rows
        ],
    )  # fmt: skip
