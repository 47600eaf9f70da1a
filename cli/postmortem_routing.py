"""`bitlens postmortem --routing`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .._core import numerics_version
from ..version import __version__
from .console import VIOLATED, print_json, show
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.postmortem.routing import Detection, RoutingReport


def report_routing(model: str, prompts: Sequence[str], *, as_json: bool) -> None:
    """Prints what misrouting does to a model's answers, and how it is seen.

    Raises typer.Exit with 1 if a pool answered a request that was meant for the other.
    """
    from ..audit.postmortem.routing import run_routing
    from ..model import load

    with progress_bars() as tell:
        report = run_routing(load(model), prompts, tell)
    if as_json:
        versions = {"version": __version__, "numerics_version": numerics_version}
        print_json(model=model, **dataclasses.asdict(report), **versions)
    else:
        _print(model, report)
    if report.answered:
        raise typer.Exit(VIOLATED)


def _print(model: str, report: RoutingReport) -> None:
    tokens = report.movement.tokens
    lines = [
        f"{model}: a short pool, {report.short}, and a long one, {report.long}",
        f"with the check: {report.answered} of {report.injected:,} misroutes answered",
        f"without: of {report.canaries} prompts {report.logprobs_differ:.1%} have other "
        f"log-probabilities, {report.text_differs:.1%} another text",
        f"next tokens: mean KL {tokens.kl.mean:.2g} nats, {tokens.by_prompt.mean:.1%} another best "
        f"one; right {report.movement.accuracy:.1%}, lost {report.effect.lost:.1%}, gained "
        f"{report.effect.gained:.1%}",
    ]
    for rate, (n, users) in report.conversations.items():
        lines.append(
            f"{rate:.1%} misrouted: after {n:.1f} conversations 30% of users have met it "
            f"(simulated, {round(n)}: {users:.1%})"
        )
    typer.echo("\n".join(lines))
    show(_by_position(report))
    for name, by_rate in report.detection.items():
        for rate, found in by_rate.items():
            show(_looked(f"{rate:.1%} misrouted, effect: {name}", found))


def _by_position(report: RoutingReport) -> Table:
    table = Table(title="loss of the next token in nats, by its position", box=SIMPLE_HEAD)
    for column in ("tokens before it", "right pool", "wrong pool", "change (95%)"):
        table.add_column(column, justify="right")
    for each in report.movement.by_position:
        low, high = each.change.interval.low, each.change.interval.high
        table.add_row(
            f"{each.first} to {each.last}" if each.first != each.last else str(each.first),
            f"{each.right:.3f}",
            f"{each.wrong:.3f}",
            f"{each.change.mean:+.3f} ({low:+.3f} to {high:+.3f})",
        )
    return table


def _looked(title: str, found: Sequence[Detection]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("how it is looked for")
    for column in ("items", "power", "simulated", "sequential, median"):
        table.add_column(column, justify="right")
    for each in found:
        sequential = "–" if each.sequential is None else f"{each.sequential:,}"
        table.add_row(
            each.method, f"{each.items:,}", f"{each.power:.0%}", f"{each.simulated:.1%}", sequential
        )
    return table
