"""`make bench-precision`: inject every fault, run every judge, look for false alarms."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from ... import __version__, _core
from ...cpu import cpu_name
from ...precision.operations import OPERATIONS
from ...precision.search import PROFILES
from . import honesty, page, power, rms_norm
from .conventions import Example
from .draws import examples
from .libraries import LIBRARIES
from .public_bugs.bugs import BUGS
from .public_bugs.outcome import measure


def run(
    libraries: list[str],
    operations: Collection[str] = OPERATIONS,
    *,
    n_examples: int,
    n_rows: int,
    seed: int,
    search: bool,
    command: str,
) -> page.Results:
    """Measures operation by operation, with a progress bar on stderr."""
    bugs = [measure(bug) for bug in BUGS if bug.contract.op in operations] if search else []
    results = page.Results(command, _machine(), [], [], rms_norm.measure(seed), bugs)
    work = [(library, op) for library in libraries for op in LIBRARIES[library] if op in operations]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(work))
        for library, op in work:
            progress.update(bar, description=f"{library}: {op}")
            contract = LIBRARIES[library][op]
            drawn = [Example.of(contract, x) for x in examples(contract, n_examples, seed)]
            results.cells.extend(power.cells(library, contract, drawn))
            results.honesty.append(
                honesty.measure(
                    library,
                    contract,
                    drawn,
                    n_rows=n_rows,
                    seed=zlib.crc32(f"{library} {op} {seed}".encode()),
                    profile=PROFILES["ci"] if search else None,
                    with_compiled=search,
                )
            )
            progress.advance(bar)
    return results


def _machine() -> dict[str, str]:
    return {
        "bitlens": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CPU": cpu_name(),
        "instruction sets": " ".join(_core.available_isas()),
    }


def main(
    contracts: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(LIBRARIES)}; default: all.")
    ] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help="Of these operations alone; default: all.")
    ] = None,
    onto: Annotated[
        Path | None, typer.Option(help="Figures of an earlier run, for the other operations.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="A fault and operation.")] = 100,
    rows: Annotated[int, typer.Option(min=0, help="Rows of honest code per operation.")] = 9_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same inputs.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the page.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few inputs: does it run?")] = False,
) -> None:
    """Inject every fault into every operation; which judge notices?

    Exit 1 if a fault that the contract can tell escapes, or if honest code is accused.
    """
    if unknown := sorted(set(contracts or ()) - set(LIBRARIES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(LIBRARIES)}")
    if strangers := sorted(set(operation or ()) - set(OPERATIONS)):
        raise typer.BadParameter(f"{', '.join(strangers)}: there are {', '.join(OPERATIONS)}")
    if onto is not None and contracts:
        raise typer.BadParameter("--onto keeps whole operations: leave out --contracts")
    results = run(
        contracts or list(LIBRARIES),
        operation or OPERATIONS,
        n_examples=min(examples, 10) if quick else examples,
        n_rows=min(rows, 256) if quick else rows,
        seed=seed,
        search=not quick,
        command=shlex.join(["python", "-m", "bitlens.benchmarks.precision", *sys.argv[1:]]),
    )
    if onto is not None:
        kept = page.earlier(json.loads(onto.read_text()), operation or OPERATIONS)
        results = page.merged(kept, results)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(*page.tables(results), sep="\n\n")
    for failure in results.failures:
        console.print(failure, style="red", markup=False)
    if json_file is not None:
        json_file.write_text(json.dumps(results.to_json(), indent=1) + "\n")
    if markdown is not None:
        markdown.write_text(page.markdown(results))
    if results.failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
