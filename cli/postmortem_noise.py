"""`bitlens postmortem --noise`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .._core import numerics_version
from ..version import __version__
from .console import print_json, show
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.postmortem.noise import NoiseReport, Seen


def report_noise(model: str, prompts: Sequence[str], *, as_json: bool) -> None:
    """Prints after how many items each way of looking notices each fault."""
    from ..audit.postmortem.noise import run_noise
    from ..model import load

    with progress_bars() as tell:
        report = run_noise(load(model), prompts, tell)
    if as_json:
        versions = {"version": __version__, "numerics_version": numerics_version}
        print_json(model=model, **dataclasses.asdict(report), **versions)
    else:
        _print(model, report)


def _print(model: str, report: NoiseReport) -> None:
    from ..audit.postmortem.noise.looking import ALPHA, DEPLOYMENTS, POWER

    typer.echo(
        f"{model}: {report.items} prompts, each less its last token, which is the right answer; "
        f"{report.accuracy:.1%} right, {report.seconds * 1e3:.0f} ms an item\n"
        f"items until a fault is noticed with probability {POWER:g} at level {ALPHA:g}; "
        f"* where {DEPLOYMENTS} simulated deployments of such sizes say otherwise (95%)"
    )
    show(_effects(report))
    for rate in report.findings[0].seen:
        show(_looked(f"{rate:.1%} of requests meet the fault", report, rate))


def _effects(report: NoiseReport) -> Table:
    table = Table(title="every request meets the fault", box=SIMPLE_HEAD)
    table.add_column("fault")
    for column in ("right", "lost", "gained", "log-probability", "canaries that differ"):
        table.add_column(column, justify="right")
    for each in report.findings:
        shares = (f"{share:.2%}" for share in (each.accuracy, each.lost, each.gained))
        table.add_row(each.fault, *shares, f"{each.logprob:+.4f}", f"{each.canaries:.0%}")
    return table


def _looked(title: str, report: NoiseReport, rate: float) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("fault")
    for way in report.findings[0].seen[rate]:
        table.add_column(way, justify="right")
    for each in report.findings:
        table.add_row(each.fault, *map(_items, each.seen[rate].values()))
    return table


def _items(seen: Seen) -> str:
    if seen.predicted is None:
        return "never"
    return _number(seen.predicted) + ("" if seen.agrees else " *")


def _number(n: int) -> str:
    return f"{n:,}" if n < 1_000_000 else f"{n:.1e}".replace("e+0", "e").replace("e+", "e")
