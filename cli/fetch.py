"""`bitlens fetch`."""

from __future__ import annotations

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from .console import err, print_json
from .model_argument import Model
from .options import Json


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens fetch gemma-3-270m  |  bitlens fetch HuggingFaceTB/SmolLM2-135M"
    )(fetch)


def fetch(model: Model = "smollm2-135m-instruct", as_json: Json = False) -> None:
    """Download a model into the cache and print its path."""
    from ..model.sources import ALIASES, locate

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(model, total=None)
        path = locate(
            model, progress=lambda done, total: bar.update(task, completed=done, total=total)
        ).path
    terms = ALIASES[model].terms if model in ALIASES else None
    if as_json:
        print_json(model=model, path=str(path), terms=terms)
    else:
        if terms is not None:
            err.print(f"terms of the weights: {terms}", soft_wrap=True)
        typer.echo(path)
