"""`bitlens sae dashboard`: a page to search a dictionary's features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..policies import NativePolicyName
from .explore import Against
from .loading import load_model
from .model_argument import Model
from .options import NativeDtypeOption, Threads
from .progress import progress_bars
from .sae_eval import Context, Documents, Split, Strict, Text


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens sae dashboard smollm2-135m-instruct "
        "smollm2-135m-instruct/blocks.15.hook_resid_post --against bf16"
        "  |  bitlens sae dashboard model.gguf dictionary/ --text mine.jsonl --output features.html"
    )(dashboard)


def dashboard(
    model: Model,
    dictionary: Annotated[str, typer.Argument(help="A SAELens folder, or a shipped alias.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path(
        "features.html"
    ),
    text: Text = None,
    split: Split = Documents.held_out,
    n_tokens: Annotated[int, typer.Option(min=1, help="Tokens to read.")] = 500_000,
    context_size: Context = None,
    against: Against = None,
    n_against: Annotated[int, typer.Option(min=1, help="Tokens read under --against.")] = 16_384,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels: what a page saved, or Neuronpedia's export of explanations."),
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    strict: Strict = True,
    threads: Threads = None,
) -> None:
    """Write a page that shows every feature: where it fires, what it promotes, its neighbours.

    One pass over text; everything is in one file, which asks for nothing.
    """
    from ..interp.activations import Packing
    from ..interp.dictionaries import load_dictionary
    from ..interp.pages import feature_page

    loaded = load_model(model, dtype, threads=threads)
    beside = None if against is None else load_model(model, against, threads=threads)
    sae = load_dictionary(dictionary, model=loaded, strict=strict)
    with progress_bars() as advance:
        page = feature_page(
            loaded,
            sae,
            text=text,
            split=split.value,
            n_tokens=n_tokens,
            packing=None if context_size is None else Packing(context_size),
            against=beside,
            n_against=n_against,
            labels=labels,
            progress=advance,
        )
    page.save(output)
    typer.echo(f"wrote {output}, {output.stat().st_size / 2**20:.1f} MiB")
