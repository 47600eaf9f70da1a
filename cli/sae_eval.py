"""`bitlens sae eval` and `bitlens sae compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import show
from .loading import load_model
from .model_argument import Model
from .options import NativeDtypeOption
from .progress import progress_bars

if TYPE_CHECKING:
    from ..interp.evaluation import Comparison, EvalResult


class Documents(StrEnum):
    held_out = "held_out"
    all = "all"


FIGURES = {
    "L0": ("l0", ".2f"),
    "explained variance": ("explained_variance", ".4f"),
    "  with outliers": ("explained_variance_all", ".4f"),
    "MSE": ("mse", ".5g"),
    "cosine": ("cossim", ".4f"),
    "loss": ("ce_loss_without_sae", ".4f"),
    "  spliced": ("ce_loss_with_sae", ".4f"),
    "  spliced, outliers too": ("ce_loss_with_sae_all", ".4f"),
    "  zero ablation": ("ce_loss_with_ablation", ".4f"),
    "  mean ablation": ("ce_loss_with_mean_ablation", ".4f"),
    "delta CE": ("delta_ce", ".4f"),
    "  outliers too": ("delta_ce_all", ".4f"),
    "recovered of zero ablation": ("ce_loss_score", ".4f"),
    "recovered of mean ablation": ("ce_loss_score_mean", ".4f"),
    "KL": ("kl_div_with_sae", ".4f"),
    "dead": ("dead_share", ".2%"),
    "tokens": ("n_tokens", ",d"),
    "  of them outliers": ("n_excluded", ",d"),
    "tokens for dead": ("n_dead_tokens", ",d"),
}
"""What the table says, the field it is, and its format."""

CONTROL = "random control"

Text = Annotated[
    Path | None,
    typer.Option(help="A text or .jsonl file, or a folder of them (default: the shipped corpus)."),
]
Split = Annotated[
    Documents, typer.Option(help="Judge on documents that training never saw, or on all.")
]
Tokens = Annotated[int, typer.Option(min=1, help="Tokens for reconstructions and losses.")]
DeadTokens = Annotated[
    int,
    typer.Option(min=0, help="Count a feature as dead if it is active in none of so many tokens."),
]
Context = Annotated[int | None, typer.Option(min=2, help="Tokens of the longest sequence.")]
Strict = Annotated[
    bool, typer.Option(help="Refuse a dictionary of a model with another fingerprint.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads (default: torch's number).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        name="eval",
        epilog="Examples:  bitlens sae eval smollm2-135m-instruct run/dictionary"
        "  |  bitlens sae eval model.gguf dictionary/ --text mine.jsonl --split all --json",
    )(evaluate)
    app.command(
        epilog="Examples:  bitlens sae compare smollm2-135m-instruct a/ b/"
        "  |  bitlens sae compare smollm2-135m-instruct a/ b/ --weights-only",
    )(compare)


def evaluate(
    model: Model,
    dictionary: Annotated[str, typer.Argument(help="A SAELens folder, or a shipped alias.")],
    text: Text = None,
    split: Split = Documents.held_out,
    n_tokens: Tokens = 1 << 16,
    n_dead_tokens: DeadTokens = 1_000_000,
    context_size: Context = None,
    outliers: Annotated[
        bool, typer.Option(help="Judge rows above 3 times the median norm apart.")
    ] = True,
    control: Annotated[
        int | None,
        typer.Option(help="Also judge equally sparse random directions, drawn with this seed."),
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    strict: Strict = True,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Judge a dictionary on text it was not trained on: reconstructions, losses, features."""
    from ..interp.activations import Packing
    from ..interp.dictionaries import load_dictionary
    from ..interp.evaluation import evaluate as run
    from ..interp.evaluation import random_dictionary

    judged = {dictionary: load_dictionary(dictionary)}
    if control is not None:
        judged[CONTROL] = random_dictionary(judged[dictionary], control)
    loaded = load_model(model, dtype, threads=threads)
    found: dict[str, EvalResult] = {}
    with progress_bars() as advance:
        for name, each in judged.items():
            found[name] = run(
                loaded,
                each,
                text=text,
                n_tokens=n_tokens,
                n_dead_tokens=n_dead_tokens,
                split=split.value,
                packing=None if context_size is None else Packing(context_size),
                exclude_outliers=outliers,
                strict=strict,
                progress=_named(advance, name),
            )
    if not as_json:
        _print_results(found)
        return
    extra = {} if control is None else {"control": found[CONTROL].to_dict()}
    _print_json(model=model, dictionary=dictionary, **found[dictionary].to_dict(), **extra)


def compare(
    model: Model,
    dictionaries: Annotated[list[str], typer.Argument(help="Two or more dictionaries.")],
    text: Text = None,
    split: Split = Documents.held_out,
    n_tokens: Tokens = 1 << 16,
    n_dead_tokens: DeadTokens = 1_000_000,
    context_size: Context = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Compare decoders alone; runs no model.")
    ] = False,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    strict: Strict = True,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Judge several dictionaries on the same text, and say which features they share."""
    from ..interp.activations import Packing
    from ..interp.dictionaries import load_dictionary
    from ..interp.evaluation import compare as run

    if len(set(dictionaries)) < max(2, len(dictionaries)):
        raise ValueError("sae compare: name at least two dictionaries, each of them once")
    read = {name: load_dictionary(name) for name in dictionaries}
    loaded = None if weights_only else load_model(model, dtype, threads=threads)
    with progress_bars() as advance:
        found = run(
            read,
            model=loaded,
            text=text,
            n_tokens=n_tokens,
            n_dead_tokens=n_dead_tokens,
            split=split.value,
            packing=None if context_size is None else Packing(context_size),
            strict=strict,
            progress=lambda name, *stage: _named(advance, name)(*stage),
        )
    if as_json:
        _print_json(model=model, **found.to_dict())
        return
    if found.results:
        _print_results(found.results)
    _print_neighbours(found)


def _named(advance: Callable[[str, int, int], None], name: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: advance(f"{name}: {stage}", done, total)


def _print_results(results: dict[str, EvalResult]) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for name in results:
        table.add_column(escape(name), justify="right")
    for words, (field, how) in FIGURES.items():
        table.add_row(words, *(format(getattr(result, field), how) for result in results.values()))
    show(table)


def _print_neighbours(found: Comparison) -> None:
    if not found.neighbours:
        typer.echo("no two of them write the same hook: they have no features in common")
        return
    table = Table(title="nearest features, by the cosine of decoder rows", box=SIMPLE_HEAD)
    for column in ("features of", "among those of", "above 0.7", "median"):
        table.add_column(column, justify="left" if "of" in column else "right")
    for (a, b), near in found.neighbours.items():
        table.add_row(escape(a), escape(b), f"{near.share_near:.1%}", f"{near.median:.3f}")
    show(table)


def _print_json(**data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))
