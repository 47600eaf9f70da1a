"""The commands' console, the setting that they report, and their exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

from .._core import isa, numerics_version
from ..threads import get_num_threads
from ..version import __version__

VIOLATED, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED = 1, 2, 3, 130

_ANY_WIDTH = 10_000

# Results go to stdout; progress and remarks to stderr, so that output can be piped.
out = Console()
err = Console(stderr=True)


def setting(dtype: StrEnum) -> dict[str, Any]:
    """Returns what a result was computed with, as JSON-ready data."""
    return {
        "dtype": dtype.value,
        "isa": isa(),
        "threads": get_num_threads(),
        "version": __version__,
        "numerics_version": numerics_version,
    }


def setting_line(dtype: StrEnum) -> str:
    """The same in words."""
    threads = get_num_threads()
    return f"{dtype.value}, {isa()}, {threads} thread{'s' * (threads > 1)}"


def command_line() -> str:
    """Returns what was typed, to be typed again."""
    return shlex.join(["bitlens", *sys.argv[1:]])


def show(table: Table, console: Console = out) -> None:
    """Prints a table whose words may wrap, and whose numbers stay whole: where the terminal is too
    narrow for the longest of them, lines run over its edge instead."""
    plenty = console.options.update(max_width=_ANY_WIDTH)
    needed = Measurement.get(console, plenty, table).minimum
    options = console.options.update(max_width=max(console.width, needed))
    console.print(Segments(console.render(table, options)), end="", soft_wrap=True)


def print_json(**data: Any) -> None:
    """Writes one JSON object to stdout."""
    typer.echo(json.dumps(data, indent=2))
