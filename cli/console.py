"""The commands' console, the setting that they report, and their exit codes."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console

from .._core import isa, numerics_version
from ..threads import get_num_threads
from ..version import __version__

VIOLATED, BAD_INPUT, INTERNAL_ERROR = 1, 2, 3

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


def print_json(**data: Any) -> None:
    """Writes one JSON object to stdout."""
    typer.echo(json.dumps(data, indent=2))
