"""The model that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..names import ALIASES, may_be_on_the_hub, no_such_model


def complete_model(incomplete: str) -> list[str]:
    """Returns the aliases that begin so; the shell itself offers files."""
    return [alias for alias in ALIASES if alias.startswith(incomplete)]


def _here(source: str) -> str:
    """Downloads a model on the hub before a command draws anything, since huggingface_hub has
    progress bars of its own. From here on the command means that commit, wherever it loads it.

    What is nothing here is refused without waiting for torch."""
    if source in ALIASES or Path(source).expanduser().exists():
        return source
    if not may_be_on_the_hub(source):
        raise no_such_model(source)
    from ..model.sources import locate

    return locate(source).name or source


Model = Annotated[
    str,
    typer.Argument(
        help="A .gguf file, a Hugging Face directory, an id on the Hugging Face hub (org/name, "
        f"org/name@revision, org/name:Q4_K_M), or an alias: {', '.join(ALIASES)}.",
        callback=_here,
        autocompletion=complete_model,
    ),
]
