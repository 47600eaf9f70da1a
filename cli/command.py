"""The `bitlens` command: its groups of commands, and how it ends.

Exit codes: 0 done, 1 a promise was violated, 2 bad usage or bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .._core import numerics_version
from ..names import did_you_mean, near_files
from ..version import __version__
from .console import BAD_INPUT, INTERNAL_ERROR, INTERRUPTED

GROUPS = (
    "generate",
    "think",
    "info",
    "fetch",
    "verify",
    "bench",
    "audit",
    "equivalence",
    "compare",
    "tools_eval",
    "context_cost",
    "cache_cost",
    "postmortem",
    "features",
    "explore",
    "sae",
    "clt",
    "trace",
    "probe",
    "watch",
    "serve",
    "train",
    "cai",
    "redteam",
)
"""Modules beside this one, in the order of `--help`; each registers the command of its name."""


def make_app(words: Sequence[str]) -> typer.Typer:
    """Returns the command; where the first of the words names a group, with that one alone, so that
    nothing waits for the imports of the others."""
    app = typer.Typer(
        name="bitlens",
        help="Transformers whose bits do not move and whose insides are readable at full speed.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    asked = words[0].replace("-", "_") if words else ""
    for group in (asked,) if asked in GROUPS else GROUPS:
        importlib.import_module(f".{group}", __package__).register(app)
    return app


def only_names(app: typer.Typer) -> typer.Typer:
    """Returns the command without its commands' parameters, which the list of them in `--help`
    does not show: reading their types takes longer than the rest of the answer."""
    for command in app.registered_commands:
        command.callback = _without_parameters(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance.registered_commands = []
    return app


def _without_parameters(function: Callable[..., object] | None) -> Callable[[], None]:
    def bare() -> None: ...

    if function is not None:  # no `functools.wraps`: signatures would be read through it
        bare.__name__, bare.__doc__ = function.__name__, function.__doc__
    return bare


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bitlens {__version__}, numerics {numerics_version}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what is done, and when, to stderr.")
    ] = False,
) -> None:
    if verbose:
        import logging

        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # what launched_by_torchrun reads, without torch
        return
    from ..model.parallel import launched_by_torchrun

    shared = context.invoked_subcommand == "generate" or sys.argv[1:3] == ["sae", "harvest"]
    if launched_by_torchrun() and not shared:
        raise ValueError(
            "torchrun: only `generate` runs on several ranks, and `sae harvest` shares its text; "
            "run this without it"
        )


def _as_typed(app: typer.Typer, message: str) -> str:
    """An error's way out, which names arguments of `bitlens.load`, in options of this command."""
    group = typer.main.get_command(app)
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    command = getattr(group, "commands", {}).get(name, group)
    options = {option for parameter in command.params for option in parameter.opts}

    def spell(match: re.Match[str]) -> str:
        option = f"--{match[1]}"
        return f"{option} {match[2]}" if option in options else f"{match[0]} in Python"

    return re.sub(r'\b(backend|dtype|device)="(\w+)"', spell, message)


def _message(app: typer.Typer, error: Exception) -> str:
    """The error in one line, with what the name of a missing file was meant to be."""
    text = str(error)
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        text = f"{error.filename}: {error.strerror}{near_files(Path(error.filename))}"
    return " ".join(_as_typed(app, text).split()) or type(error).__name__


def _leave_at_once(code: int) -> NoReturn:
    """Ends the process without Python's own end, which lasts as long as a second where a call that
    Ctrl-C left behind is still at work."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Runs the command; bad input ends in one line on stderr, not in a traceback."""
    completes = "_BITLENS_COMPLETE" in os.environ  # a shell asks; the words are in the environment
    words = [] if completes else sys.argv[1:]
    if words and not words[0].startswith("-") and words[0].replace("-", "_") not in GROUPS:
        names = [group.replace("_", "-") for group in GROUPS]
        near = did_you_mean(words[0], names)
        typer.secho(f"bitlens: no such command: {words[0]}{near}; see --help", fg="red", err=True)
        raise SystemExit(BAD_INPUT)
    app = make_app(words)
    if words[:1] == ["--help"]:
        only_names(app)
    try:
        app()
    except (ValueError, OSError, NotImplementedError, RuntimeError, MemoryError) as error:
        typer.secho(f"bitlens: {_message(app, error)}", fg="red", err=True)
        raise SystemExit(BAD_INPUT) from None
    except SystemExit as leaving:  # Ctrl-C comes as 1, which says that a promise was broken
        aborted = isinstance(leaving.__context__, typer.Abort)
        code = INTERRUPTED if aborted else leaving.code
        if code == INTERRUPTED and threading.active_count() > 1:
            _leave_at_once(INTERRUPTED)
        raise SystemExit(code) from None
    except Exception:  # a bug of ours must not exit with 1, which says that a promise was broken
        traceback.print_exc()
        raise SystemExit(INTERNAL_ERROR) from None
