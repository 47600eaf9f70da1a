"""`bitlens probe attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import out, print_json
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Example:  bitlens probe attack smollm2-135m-instruct probe pyrit-harm --hide 20",
    )(attack)


def attack(
    model: Model,
    probe: Annotated[Path, typer.Argument(help="A folder that `bitlens probe train` made.")],
    data: Annotated[
        str, typer.Argument(help="Conversations of both classes, as `probe eval` takes them.")
    ],
    hide: Annotated[
        int, typer.Option(min=0, help="Flagged conversations that the search tries to hide.")
    ] = 20,
    prefix: Annotated[int, typer.Option(min=1, help="Tokens of a prefix that hides.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Changes of a prefix.")] = 8,
    tries: Annotated[int, typer.Option(min=1, help="Tokens tried at each change.")] = 16,
    max_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens of a text that the search works on.")
    ] = 64,
    rewrite: Annotated[
        list[str] | None, typer.Option(help="A rewrite, such as rot13. Default: all.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Take only so many conversations.")
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Refuse a probe of a model with another fingerprint.")
    ] = True,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Attack a probe at its frozen threshold: paraphrases, ciphers, and an adaptive search.

    Prints figures alone: no text, and none of the tokens that were found.
    """
    from ..interp.probes import Probe
    from ..interp.probes.attack import REWRITES, AttackConfig, attack_probe
    from ..interp.probes.data import open_dataset

    config = AttackConfig(tuple(rewrite or REWRITES), hide, prefix, steps, tries, max_tokens)
    labelled = open_dataset(data)
    if limit is not None:
        labelled = labelled.take(range(min(limit, len(labelled))))
    loaded = load_model(model, dtype, threads=threads)
    found = Probe.load(probe, loaded, strict=strict)
    with progress_bars() as advance:
        report = attack_probe(loaded, found, labelled, config, progress=advance)
    if as_json:
        print_json(**report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from ..interp.probes.page import share

    table = Table(box=SIMPLE_HEAD)
    for column in ("", "AUROC", "harmful flagged", "benign flagged"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in report["rewrites"].items():
        table.add_row(name, f"{each['auroc']:.3f}", share(each["recall"]), share(each["fpr"]))
    out.print(table)
    search = report.get("search")
    if search is None:
        return
    if not search["flagged"]:
        out.print("search: no conversation is flagged within its tokens: nothing to hide")
        return
    line = (
        f"search: hides {share(search['hidden'])} of flagged conversations, a random prefix "
        f"{share(search['hidden_by_a_random_prefix'])}; median score {search['score_before']:.3g} "
        f"before, {search['score_after']:.3g} after, {search['tries']} prefixes tried"
    )
    out.print(escape(line), soft_wrap=True)
