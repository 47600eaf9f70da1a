"""The model that a command is given."""

from __future__ import annotations

from typing import Annotated

import typer


def _here(source: str) -> str:
    """Downloads a model on the hub before a command draws anything, since huggingface_hub has
    progress bars of its own. From here on the command means that commit, wherever it loads it."""
    from ..model.sources import ALIASES, locate

    return source if source in ALIASES else locate(source).name or source


Model = Annotated[
    str,
    typer.Argument(
        help="A .gguf file, a Hugging Face directory, an id on the Hugging Face hub (org/name, "
        "org/name@revision, org/name:Q4_K_M), or an alias: smollm2-135m-instruct, "
        "gemma-3-270m.",
        callback=_here,
    ),
]
