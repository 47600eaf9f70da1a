"""`bitlens cai`: its commands, a file each."""

from __future__ import annotations

import typer

from . import cai_levels, cai_many_shot


def register(app: typer.Typer) -> None:
    """Adds the group."""
    cai = typer.Typer(
        help="Change a model by a constitution, and judge the change.", no_args_is_help=True
    )
    app.add_typer(cai, name="cai")
    for command in (cai_levels, cai_many_shot):
        command.register(cai)
