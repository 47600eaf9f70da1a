"""`python -m bitlens.benchmarks [SUITE ...]`: measure, print a table, write benchmarks/results/.

With `--against CHECKOUT` the peer is another build of bitlens, and nothing is kept.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..model.sources import ALIASES, fetch
from . import against, report
from .suites import Options, Suite, run


class Show(StrEnum):
    table = "table"
    markdown = "markdown"


def main(
    suites: Annotated[list[Suite] | None, typer.Argument(help="Default: all of them.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Default: 1 and 2.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; default: both.")] = None,
    model: Annotated[str, typer.Option(help="Alias or file.")] = "smollm2-135m-instruct",
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Turns of every contender; default: 5, 15 with --against."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: does it run?")] = False,
    show: Annotated[Show | None, typer.Option(help="Print the last results instead.")] = None,
    checkout: Annotated[
        Path | None,
        typer.Option(
            "--against", help=f"Pair with this checkout's build ({', '.join(against.PAIRED)})."
        ),
    ] = None,
) -> None:
    """Measure bitlens against peers or another build, in turns; exit 1 if a target is missed."""
    options = Options(
        model=str(fetch(model)) if model in ALIASES else model,
        threads=tuple(threads or (1, 2)),
        dtypes=tuple(dtype or ("bf16", "fp32")),
        rounds=1 if quick else rounds or (5 if checkout is None else 15),
        quick=quick,
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    if checkout is not None:
        if show is not None:
            raise typer.BadParameter("--show prints the kept results; --against keeps none")
        _pair(suites or list(against.PAIRED), checkout, options, console)
        return
    wanted = suites or list(Suite)
    rows = report.load_saved(wanted) if show else _measure(wanted, options, console)
    if show is Show.markdown:
        typer.echo(report.markdown(rows))
    else:
        console.print(*report.tables(rows), sep="\n")
    if not quick and any(row.verdict == "FAIL" for row in rows):
        raise typer.Exit(1)


def _measure(suites: list[Suite], options: Options, console: Console) -> list[report.Row]:
    """Runs the suites, prints each row as it comes, and keeps them all."""
    rows = []
    for suite in suites:
        measured = []
        for row in run(suite, options):
            measured.append(row)
            console.print(f"{row.suite}: {row.what}: {row.value:.3g}{row.unit} {row.verdict}")
        report.save(suite, measured, quick=options.quick)
        rows += measured
    return rows


def _pair(suites: list[Suite], checkout: Path, options: Options, console: Console) -> None:
    """Prints what the suites' tasks take in this build and in the checkout's."""
    measured = []
    try:
        for pair in against.pairs(suites, checkout, options):
            console.print(f"{pair.what}: {pair.ratio:.3f}x, {pair.verdict}")
            measured.append(pair)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(against.table(measured))


if __name__ == "__main__":
    typer.run(main)
