"""`bitlens postmortem --xla`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .._core import numerics_version
from ..version import __version__
from .console import err, print_json, show
from .files import check_output
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.postmortem.compiled import BlockFindings, CompiledReport


def report_xla(
    model: str,
    prompts: Sequence[str],
    *,
    output: Path,
    made: Sequence[tuple[str, str]],
    as_json: bool,
) -> None:
    """Prints what XLA's excess precision does to the model's blocks and to a sampler; writes the
    same as a page, which `made` says the origin of."""
    from ..audit.postmortem.compiled import run_compiled
    from ..audit.postmortem.compiled.page import page

    check_output(output)
    with progress_bars() as tell:
        report = run_compiled(model, prompts, tell)
    output.write_text(page(Path(model).stem, report, made), encoding="utf-8")
    if as_json:
        versions = {"version": __version__, "numerics_version": numerics_version}
        print_json(model=model, **dataclasses.asdict(report), **versions)
    else:
        _print(model, report)
        err.print(f"report in {output}", highlight=False)


def _print(model: str, report: CompiledReport) -> None:
    from ..audit.postmortem.compiled.words import cause

    blocks = report.blocks
    typer.echo(
        f"{model}, JAX {report.jax}, bf16; excess precision forbidden (strict) and allowed "
        f"(excess, the default)\n{blocks.layers} blocks, {blocks.rows} positions: strict has the "
        f"bits of its operations one by one at {blocks.stated}; excess has others at {blocks.moved}"
    )
    show(_operations(blocks))
    typer.echo(cause(blocks))
    show(_samplers(report))


def _operations(blocks: BlockFindings) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("operation")
    for column in ("values", "outside, strict", "outside, excess", "restored by its rounding"):
        table.add_column(column, justify="right")
    for address, strict in blocks.judged["strict"].items():
        excess = blocks.judged["excess"][address]
        outside = (f"{found.outside:,}" if found.outside else "0" for found in (strict, excess))
        table.add_row(address, f"{strict.values:,}", *outside, f"{blocks.restored[address]:.1%}")
    inner = {a: share for a, share in blocks.restored.items() if a not in blocks.judged["strict"]}
    for address, share in inner.items():
        table.add_row(f"  {address}", "", "", "", f"{share:.1%}")
    return table


def _samplers(report: CompiledReport) -> Table:
    table = Table(title="a sampler in bf16, compiled, on the model's own logits", box=SIMPLE_HEAD)
    table.add_column("flag")
    columns = ("other probabilities", "best token lost", "other candidates", "tokens changed")
    for column in (*columns, "restored by"):
        table.add_column(column, justify="right")
    for each in report.samplers:
        best = max(each.restored, key=each.restored.__getitem__, default=None)
        table.add_row(
            each.flag,
            f"{each.other_values:,} of {each.values:,}",
            f"{each.best_lost} of {each.prompts}",
            f"{each.other_candidates} of {each.prompts}",
            f"{each.tokens_changed:,}",
            "" if best is None else f"{best}: {each.restored[best]:.1%}",
        )
    return table
