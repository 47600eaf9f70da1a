"""`bitlens equivalence`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .._core import numerics_version
from ..threads import set_num_threads
from ..version import __version__
from .console import VIOLATED, command_line, err, out, print_json, show
from .files import check_output
from .model_argument import Model
from .options import Json, Threads

if TYPE_CHECKING:
    from ..audit.platforms import EquivalenceReport, PlatformRow


class Required(StrEnum):
    """The grades that can be asked for."""

    equivalent = "equivalent"
    within_contract = "within_contract"
    same_bits = "same_bits"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens equivalence smollm2-135m-instruct --platforms generic,hf,hf-bf16"
        "  |  bitlens equivalence MODEL --n-prompts 64 --require equivalent --output table.json",
    )(equivalence)


def equivalence(
    model: Model,
    platforms: Annotated[
        str,
        typer.Option(help="all, or names: generic, avx2, hf, compile, jax, onnx, llama.cpp, ..."),
    ] = "all",
    n_prompts: Annotated[int, typer.Option(min=2, help="Prompts, of those shipped.")] = 16,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens a prompt.")] = 128,
    margin: Annotated[
        float, typer.Option(help="Factor that errors may differ by, fixed beforehand.")
    ] = 2.0,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts.")] = 0,
    require: Annotated[
        Required | None, typer.Option(help="Exit 1 if a platform's grade is below this.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the report there, as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report there, as a page.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the same model on other compilers and libraries, and grade each against fp64.

    Same bits; every operation within its contract; equivalent within the margin; not shown. A
    platform whose library is missing is a row that names it (extras `platforms`, `llama-cpp`).
    """
    from ..audit.platforms import Grade
    from ..audit.platforms import equivalence as judge
    from ..audit.platforms.page import page

    for path in (output, html):
        if path is not None:
            check_output(path)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        set_num_threads(threads)
    report = judge(
        model, platforms, n_prompts=n_prompts, tokens=tokens, margin=margin, alpha=alpha, seed=seed
    )
    if output is not None:
        output.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if html is not None:
        html.write_text(page(report, _made()), encoding="utf-8")
        err.print(f"report in {html}", highlight=False)
    if as_json:
        print_json(**report.as_dict())
    else:
        _print(report)
    least = Grade.NOT_RUN if require is None else Grade[require.value.upper()]
    if any(row.grade < least for row in report.rows):
        raise typer.Exit(VIOLATED)


def _made() -> list[tuple[str, str]]:
    from ..audit.page.render import page_date

    return [
        ("command", command_line()),
        ("date", page_date()),
        ("version", f"bitlens {__version__}, numerics {numerics_version}"),
    ]


def _print(report: EquivalenceReport) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("platform")
    for name in ("rms", "largest", "KL", "flips", "certified", "ratio", "p (margin)"):
        table.add_column(name, justify="right")
    table.add_column("grade")
    for row in report.rows:
        table.add_row(row.platform, *_figures(row), row.verdict)
    show(table)
    for row in report.rows:
        for remark in (row.error or row.first_violation, row.remark):
            if remark:
                err.print(f"{row.platform}: {escape(remark)}", soft_wrap=True)
        if row.positions is not None and row.positions < report.prompts * report.tokens:
            at = f"{row.positions} of {report.prompts * report.tokens} positions"
            err.print(f"{row.platform}: looked at {at}", soft_wrap=True)
    out.print(
        f"{report.prompts} prompts of {report.tokens} tokens; log-probabilities of the next token "
        f"against fp64, in nats; ratio: error over that of the policy's own rounding, margin "
        f"{report.margin:g} at level {report.alpha:g} (plan {report.digest[:12]})",
        soft_wrap=True,
        highlight=False,
    )


def _figures(row: PlatformRow) -> list[str]:
    if row.rms is None or row.largest is None or row.kl is None or row.flips is None:
        return [""] * 7
    return [
        f"{row.rms:.2e}",
        f"{row.largest:.2e}",
        f"{row.kl:.2e}",
        f"{row.flips:.2%}",
        f"{row.certified:.1%}",
        f"{row.ratio:.3f}",
        f"{row.tost_p:.2g}",
    ]
