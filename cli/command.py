"""The `bitlens` command: its groups of commands, and how it ends.

Exit codes: 0 done, 1 a promise was violated, 2 bad usage or bad input.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Annotated

import typer

from .._core import numerics_version
from ..version import __version__
from . import (
    audit,
    bench,
    clt,
    context_cost,
    explore,
    features,
    fetch,
    generate,
    info,
    postmortem,
    probe,
    sae,
    serve,
    trace,
    verify,
    watch,
)
from .console import BAD_INPUT, INTERNAL_ERROR

app = typer.Typer(
    name="bitlens",
    help="Transformers whose bits do not move and whose insides are readable at full speed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (
    generate,
    info,
    fetch,
    verify,
    bench,
    audit,
    context_cost,
    postmortem,
    features,
    explore,
    sae,
    clt,
    trace,
    probe,
    watch,
    serve,
):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bitlens {__version__}, numerics {numerics_version}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # what launched_by_torchrun reads, without torch
        return
    from ..model.parallel import launched_by_torchrun

    shared = context.invoked_subcommand == "generate" or sys.argv[1:3] == ["sae", "harvest"]
    if launched_by_torchrun() and not shared:
        raise ValueError(
            "torchrun: only `generate` runs on several ranks, and `sae harvest` shares its text; "
            "run this without it"
        )


def _as_typed(message: str) -> str:
    """An error's way out, which names arguments of `bitlens.load`, in options of this command."""
    group = typer.main.get_command(app)
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    command = getattr(group, "commands", {}).get(name, group)
    options = {option for parameter in command.params for option in parameter.opts}

    def spell(match: re.Match[str]) -> str:
        option = f"--{match[1]}"
        return f"{option} {match[2]}" if option in options else f"{match[0]} in Python"

    return re.sub(r'\b(backend|dtype|device)="(\w+)"', spell, message)


def main() -> None:
    """Runs the command; bad input ends in one line on stderr, not in a traceback."""
    try:
        app()
    except (ValueError, OSError, NotImplementedError, RuntimeError, MemoryError) as error:
        message = " ".join(_as_typed(str(error)).split()) or type(error).__name__
        typer.secho(f"bitlens: {message}", fg="red", err=True)
        raise SystemExit(BAD_INPUT) from None
    except Exception:  # a bug of ours must not exit with 1, which says that a promise was broken
        traceback.print_exc()
        raise SystemExit(INTERNAL_ERROR) from None
