"""`bitlens cai levels`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import out, print_json, show
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..alignment.red_team import Respondent
    from ..alignment.safety_levels import LevelsReport

N_TRAINING = 200
"""Stand-in exchanges of each kind that filters and the monitor are fitted to."""


def register(app: typer.Typer) -> None:
    """Adds the command to its group."""
    app.command(
        epilog="Example:  bitlens cai levels smollm2-135m-instruct --constitutional runs/cai/model",
    )(levels)


def levels(
    model: Model,
    safety_sft: Annotated[
        str | None, typer.Option("--sft", help="The same model after supervised safety training.")
    ] = None,
    constitutional: Annotated[
        str | None, typer.Option(help="The same model after constitutional training.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Prompts of each kind in a cell.")] = 200,
    n_templates: Annotated[int, typer.Option(min=0, help="Templates around them.")] = 1,
    n_tasks: Annotated[int, typer.Option(min=2, help="Sums, instructions, facts: each.")] = 24,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same prompts.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; a run goes on there.")
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare kinds of safety on the same prompts: none, filters, a monitor, trained models.

    Filters and the monitor are fitted to the stand-in's training exchanges; every prompt that is
    asked is in other words. What the run could not have seen is "not shown".
    """
    from ..alignment.red_team import ModelRespondent, open_templates
    from ..alignment.safety_levels import (
        RememberedModel,
        ngram_filter,
        probe_filter,
        probe_monitor,
        standin_exchanges,
    )
    from ..alignment.safety_levels import levels as compare_levels
    from ..model.weights.atomic import write_json

    loaded = load_model(model, dtype, threads=threads)
    base = RememberedModel(ModelRespondent(loaded, "none"))
    exchanges = standin_exchanges(N_TRAINING, seed=seed)
    as_seen = standin_exchanges(N_TRAINING, seed=seed, model=loaded)
    found: dict[str, Respondent] = {"none": base}
    found["n-gram filter"] = ngram_filter(base, exchanges)
    found["probe filter"] = probe_filter(base, exchanges)
    found["monitor"] = probe_monitor(base, as_seen)
    for name, source in (("safety SFT", safety_sft), ("constitutional", constitutional)):
        if source is not None:
            found[name] = ModelRespondent(load_model(source, dtype, threads=threads), name)
    templates = open_templates("standin", n_templates, seed) if n_templates else []
    with progress_bars() as advance:
        report = compare_levels(
            found, n=n, seed=seed, templates=templates, max_new_tokens=max_new_tokens,
            n_tasks=n_tasks, output=output, progress=advance,
        )  # fmt: skip
    if output is not None:
        write_json(output / "levels.json", report.as_dict())
    if as_json:
        print_json(**report.as_dict())
    else:
        _print(report)


def _print(report: LevelsReport) -> None:
    from ..alignment.red_team.prompts import KINDS
    from ..alignment.red_team.report import percent

    table = Table(box=SIMPLE_HEAD)
    table.add_column("level refuses")
    table.add_column("inside")
    for kind in KINDS:
        table.add_column(kind.replace("_", " "), justify="right", no_wrap=True)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for line in report.lines:
        shares = {"value": line.refusal, "low": line.low, "high": line.high}
        cells.setdefault((line.level, line.template), {})[line.kind] = percent(shares)
    for (level, template), found in cells.items():
        row = (found.get(kind, percent(None)) for kind in KINDS)
        table.add_row(escape(level), escape(template), *row)
    show(table)
    for text in report.remarks():
        out.print(text, soft_wrap=True, highlight=False, markup=False)
