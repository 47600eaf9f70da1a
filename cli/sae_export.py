"""`bitlens sae export`: features as other front ends read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..policies import NativePolicyName
from .loading import load_model
from .model_argument import Model
from .options import NativeDtypeOption, Threads
from .progress import progress_bars
from .sae_eval import Context, Documents, Split, Strict, Text


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Example:  bitlens sae export smollm2-135m-instruct run/transcoders/layer_3 "
        "--output features/tiny"
    )(export)


def export(
    model: Model,
    dictionary: Annotated[str, typer.Argument(help="A folder, or a shipped alias.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the files.")],
    text: Text = None,
    split: Split = Documents.held_out,
    n_tokens: Annotated[int, typer.Option(min=1, help="Tokens to read.")] = 500_000,
    context_size: Context = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    strict: Strict = True,
    threads: Threads = None,
) -> None:
    """Write a JSON file for each feature, as circuit-tracer and Neuronpedia show them.

    A file holds examples by quantile, tokens promoted and suppressed, and how often it fires.
    """
    from ..interp.activations import Packing
    from ..interp.dictionaries import load_dictionary
    from ..interp.pages import export_features

    loaded = load_model(model, dtype, threads=threads)
    sae = load_dictionary(dictionary, model=loaded, strict=strict)
    with progress_bars() as advance:
        n = export_features(
            loaded,
            sae,
            output,
            text=text,
            split=split.value,
            n_tokens=n_tokens,
            packing=None if context_size is None else Packing(context_size),
            progress=advance,
        )
    typer.echo(f"wrote {n:,} features to {output}")
