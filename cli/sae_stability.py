"""`bitlens sae stability`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import VIOLATED, show
from .loading import load_model
from .model_argument import Model
from .options import Json, Threads
from .progress import progress_bars
from .sae_eval import Context, Documents, Split, Strict, Text

if TYPE_CHECKING:
    from ..interp.stability import StabilityResult

_EXAMPLES = 8


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens sae stability smollm2-135m-instruct "
        "smollm2-135m-instruct/blocks.15.hook_resid_post"
        "  |  bitlens sae stability model/ dictionary/ --b quantised.gguf --json",
    )(stability)


def stability(
    model: Model,
    dictionary: Annotated[str, typer.Argument(help="A dictionary, as `sae eval` takes it.")],
    a: Annotated[
        NativePolicyName, typer.Option("--a", help="The reference's precision policy.")
    ] = NativePolicyName.fp32,
    b: Annotated[
        str, typer.Option("--b", help="The other run: a policy, or other weights under policy a.")
    ] = "bf16",
    text: Text = None,
    split: Split = Documents.held_out,
    n_tokens: Annotated[int, typer.Option(min=1, help="Tokens to read.")] = 1 << 14,
    context_size: Context = None,
    strict: Strict = True,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say which features fire in one run and not in the other, and which cannot have flipped.

    Exit 1 if a certified feature flipped.
    """
    from ..interp.activations import Packing
    from ..interp.dictionaries import load_dictionary
    from ..interp.stability import stability as run

    found = load_dictionary(dictionary)
    if b == a.value:
        raise ValueError(f"--b {b}: the same run as --a; choose another policy or other weights")
    reference = load_model(model, a, threads=threads)
    if b in set(NativePolicyName):
        other = load_model(model, NativePolicyName(b), threads=threads)
    else:
        other = load_model(b, a, threads=threads)
    with progress_bars() as advance:
        result = run(
            reference,
            other,
            found,
            text=text,
            n_tokens=n_tokens,
            split=split.value,
            packing=None if context_size is None else Packing(context_size),
            strict=strict,
            progress=lambda done, total: advance("features", done, total),
        )
    if as_json:
        told = {"model": model, "dictionary": dictionary, "a": a.value, "b": b}
        typer.echo(json.dumps(told | result.to_dict(), indent=2))
    else:
        _print(result)
    if result.wrong:
        raise typer.Exit(VIOLATED)


def _print(result: StabilityResult) -> None:
    out = Console()
    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for words, value in (
        ("tokens", f"{result.n_tokens:,}"),
        ("  with a feature that differs", f"{result.n_changed_tokens:,}"),
        ("features active in a", f"{result.active:,}"),
        ("  lost in b", f"{result.lost:,}"),
        ("  gained in b", f"{result.gained:,}"),
        ("  differing, of those active in either", f"{result.changed_share:.2%}"),
        ("pairs", f"{result.pairs:,}"),
        ("  certified not to have flipped", f"{result.certified_share:.1%}"),
        ("  certified, but flipped", f"{result.wrong:,}"),
    ):
        table.add_row(words, value)
    show(table, out)
    if not result.examples:
        return
    shown = Table(title="flips, widest margin first", box=SIMPLE_HEAD)
    for column in ("feature", "", "after", "activation", "margin", "bound"):
        shown.add_column(column, justify="left" if column in ("", "after") else "right")
    for flip in result.examples[:_EXAMPLES]:
        figures = (f"{x:.3g}" for x in (flip.value, flip.margin, flip.bound))
        context = escape(flip.context[-30:].replace("\n", "⏎"))
        shown.add_row(str(flip.feature), flip.kind, context, *figures)
    show(shown, out)
