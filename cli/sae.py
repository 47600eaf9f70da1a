"""`bitlens sae`: sparse dictionaries are trained here, judged and compared."""

from __future__ import annotations

import typer

from . import sae_dashboard, sae_eval, sae_export, sae_stability, sae_train


def register(app: typer.Typer) -> None:
    """Adds the group."""
    sae = typer.Typer(help="Train, judge and compare sparse dictionaries.", no_args_is_help=True)
    app.add_typer(sae, name="sae")
    for group in (sae_train, sae_eval, sae_stability, sae_dashboard, sae_export):
        group.register(sae)
