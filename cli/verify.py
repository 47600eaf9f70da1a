"""`bitlens verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..policies import NativePolicyName
from ..threads import set_num_threads
from .console import VIOLATED, err, out, print_json, show
from .model_argument import Model
from .options import Device, Json, NativeDtypeOption, Threads

if TYPE_CHECKING:
    from ..audit.invariance.verify import VerifyReport, VerifyRow


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens verify smollm2-135m-instruct --quick"
        "  |  bitlens verify model.gguf --dtype bf16"
    )(verify)


def verify(
    model: Model,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer lengths and layers.")] = False,
    threads: Threads = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Prove on this machine that the bits do not move; exit 1 if one does."""
    from ..audit.invariance.verify import verify as verify_model

    if threads is not None:
        set_num_threads(threads)
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("loading")
        report = verify_model(
            model,
            dtype=dtype.value,
            quick=quick,
            device=device,
            progress=lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    if as_json:
        print_json(**report.to_dict())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(VIOLATED)


def _print_report(report: VerifyReport) -> None:
    table = Table(title=f"{report.model}, {report.dtype}: do the bits move?", box=SIMPLE_HEAD)
    table.add_column("varied: how (what shows that it ran)")
    table.add_column("values", justify="right")
    table.add_column("other bits", justify="right")
    table.add_column("")
    for row in report.rows:
        remark = row.error or row.evidence
        promise = f"[bold]{row.varied}[/]: {row.compared} [dim]({escape(remark)})[/]"
        table.add_row(promise, f"{row.values:,}", f"{row.different:,}", _verdict(row))
    show(table, out)
    verdict = "[green]no bit moved[/]" if report.ok else "[red]a promise is broken[/]"
    place = "" if report.device == "cpu" else f"{report.device}, "
    setting = f"{place}{report.isa}, {report.threads} threads, numerics {report.numerics_version}"
    out.print(f"{verdict}: {setting}, {report.seconds:.0f} s")
    if report.not_covered:
        out.print(f"[dim]not covered here: {'; '.join(report.not_covered)}[/]")


def _verdict(row: VerifyRow) -> str:
    if row.error is not None:
        return "[red]not run[/]"
    if row.control:
        return "[green]differs[/]" if row.ok else "[red]blind[/]"
    return "[green]same[/]" if row.ok else "[red]MOVED[/]"
