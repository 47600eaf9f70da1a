"""A probe's report as a page. Whatever a user wrote (ids, categories, names) is escaped."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ....model.weights.atomic import write_atomically, write_json
from . import plots

REPORT, PAGE = "report.json", "report.html"

_TEMPLATE, _STYLE = "report.html.j2", "report.css"


class Row(NamedTuple):
    """A line of the table of scores: a name, and figures as they are printed."""

    name: str
    auroc: str
    recalls: tuple[str, ...]


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes report.json and report.html into a folder. Raises OSError where it cannot."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / REPORT, report)
    with write_atomically(path / PAGE) as scratch:
        scratch.write_text(render(report), encoding="utf-8")


def render(report: dict[str, Any]) -> str:
    """Returns the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    here = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"share": share}
    template = environment.from_string(here.joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        report=report,
        style=here.joinpath(_STYLE).read_text(encoding="utf-8"),
        headline=headline(report),
        rows=_rows(report),
        rates=[f"{r['target_fpr']:.1%}" for r in report.get("recall", ())],
        allowed=[r["allowed"] for r in report.get("recall", ())],
        charts=plots.charts(report),
    )


def headline(report: dict[str, Any]) -> str:
    """Returns the finding in one sentence."""
    if "auroc" not in report:
        return "Alarms on conversations of one class"
    found = f"AUROC {report['auroc']:.3f} [{report['auroc_low']:.3f}, {report['auroc_high']:.3f}]"
    if "difference" not in report:
        return found
    gap, best = report["difference"], report["best_baseline"]
    relation = "beats" if gap["low"] > 0 else "is not shown to beat"
    return (
        f"{found}; {relation} the best surface baseline, {best}, by {gap['value']:+.3f} "
        f"[{gap['low']:+.3f}, {gap['high']:+.3f}]"
    )


def share(found: dict[str, Any]) -> str:
    """Returns a share with its exact interval and its counts."""
    return (
        f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}] "
        f"({found['count']:,} of {found['of']:,})"
    )


def _rows(report: dict[str, Any]) -> list[Row]:
    if "auroc" not in report:
        return []
    named = {"this probe": report, **report["baselines"]}
    return [
        Row(
            name,
            f"{each['auroc']:.3f} [{each['auroc_low']:.3f}, {each['auroc_high']:.3f}]",
            tuple(
                f"{r['recall']['value']:.3f} [{r['recall']['low']:.3f}, {r['recall']['high']:.3f}]"
                for r in each["recall"]
            ),
        )
        for name, each in named.items()
    ]
