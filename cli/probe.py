"""`bitlens probe train` and `bitlens probe eval`; the other commands of the group beside it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from . import probe_attack, probe_causal, probe_certify
from .console import out, print_json, show
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars


class Kind(StrEnum):
    logistic = "logistic"
    mean_difference = "mean_difference"
    mass_mean = "mass_mean"
    attention = "attention"
    multi_max = "multi_max"


class LeaveOut(StrEnum):
    category = "category"
    dataset = "dataset"
    source = "source"


Data = Annotated[
    str,
    typer.Argument(
        help="A .jsonl file of objects with text and label, a data set that bitlens knows "
        "(pyrit-harm, rho-refusal, strongreject ...), or several joined by +."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A folder for report.json and report.html.")
]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    probe = typer.Typer(help="Train and judge probes of activations.", no_args_is_help=True)
    app.add_typer(probe, name="probe")
    probe.command(
        epilog="Examples:  bitlens probe train smollm2-135m-instruct mine.jsonl -o probe"
        "  |  bitlens probe train smollm2-135m-instruct pyrit-harm --benign english -o probe"
    )(train)
    probe.command(
        name="eval",
        epilog="Example:  bitlens probe eval smollm2-135m-instruct probe rho-refusal -o report",
    )(evaluate)
    for command in (probe_certify, probe_attack, probe_causal):
        command.register(probe)


def train(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The probe's folder, made here.")],
    benign: Annotated[
        str | None,
        typer.Option(help="Other conversations, all of label 0, that set thresholds: as DATA."),
    ] = None,
    hook: Annotated[
        list[str] | None,
        typer.Option(help="A candidate; a+b reads both. Default: five layers, and all of them."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="The probe.")] = Kind.logistic,
    aggregate: Annotated[
        list[str] | None,
        typer.Option(help="A candidate: mean, last, max, rolling:N, ema:WEIGHT."),
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option("--C", help="A candidate for the inverse penalty.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens read of a conversation.")] = 256,
    dictionary: Annotated[
        str | None, typer.Option(help="Read this dictionary's features, not activations.")
    ] = None,
    leave_out: Annotated[
        list[LeaveOut] | None, typer.Option(help="Also train without each of these in turn.")
    ] = None,
    target_fpr: Annotated[
        float, typer.Option(help="Share of benign conversations that the threshold may flag.")
    ] = 0.01,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Choose, fit and judge a probe by the protocol of docs/probes.md."""
    from ..interp.probes.data import open_dataset
    from ..interp.probes.protocol import ProbeConfig, default_hooks, train_probe
    from ..interp.probes.protocol.choice import AGGREGATES, STRENGTHS

    labelled = open_dataset(data)
    others = None if benign is None else open_dataset(benign)
    loaded = load_model(model, dtype, threads=threads)
    aggregates, strengths = tuple(aggregate or AGGREGATES), tuple(strength or STRENGTHS)
    config = ProbeConfig(
        tuple(tuple(h.split("+")) for h in hook) if hook else default_hooks(loaded, dictionary),
        kind=kind.value,
        max_tokens=max_tokens,
        dictionary=dictionary,
        aggregates=aggregates,
        strengths=strengths,
    )
    with progress_bars() as advance:
        found = train_probe(
            loaded,
            labelled,
            config,
            benign=others,
            leave_out=[each.value for each in leave_out or ()],
            target_fpr=target_fpr,
            output=output,
            progress=advance,
        )
    _print(found.report, output, as_json)


def evaluate(
    model: Model,
    probe: Annotated[
        Path,
        typer.Argument(help="A folder that `bitlens probe train` made, or harm, or refusal."),
    ],
    data: Data,
    output: Output = None,
    strict: Annotated[
        bool, typer.Option(help="Refuse a probe of a model with another fingerprint.")
    ] = True,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Judge a finished probe, at its frozen threshold, on conversations it was not trained on."""
    from ..interp.probes import Probe
    from ..interp.probes.data import open_dataset
    from ..interp.probes.protocol import evaluate_probe

    labelled = open_dataset(data)
    loaded = load_model(model, dtype, threads=threads)
    found = Probe.load(probe, loaded, strict=strict)
    with progress_bars() as advance:
        report = evaluate_probe(loaded, found, labelled, output=output, progress=advance)
    _print(report, output, as_json)


def _print(report: dict[str, Any], output: Path | None, as_json: bool) -> None:
    from ..interp.probes.page import headline, share

    if as_json:
        print_json(**report)
        return
    out.print(escape(headline(report)))
    for warning in report.get("warnings", ()):
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    if "auroc" in report:
        table = Table(box=SIMPLE_HEAD)
        for column in (
            "",
            "AUROC",
            *(f"recall at {r['target_fpr']:.1%}" for r in report["recall"]),
        ):
            table.add_column(column, justify="right" if column else "left")
        for name, each in {"this probe": report, **report["baselines"]}.items():
            recalls = (f"{r['recall']['value']:.3f}" for r in each["recall"])
            table.add_row(escape(name), f"{each['auroc']:.3f}", *recalls)
        show(table, out)
    for each in report.get("alarms", ()):
        for side in ("benign", "harmful"):
            if side in each:
                words = f"{side} flagged: {share(each[side]['conversations'])}"
                rate = each["target_fpr"]
                out.print(words + ("" if rate is None else f", threshold at {rate:.1%}"))
        out.print(f"[dim]{_while_written(each)}[/]")
    if output is not None:
        out.print(f"{output / 'report.html'}", soft_wrap=True)


def _while_written(alarms: dict[str, Any]) -> str:
    """Says what streaming does at a threshold, beside scoring the whole text afterwards."""
    said = []
    if "benign" in alarms:
        rate = alarms["benign"]["alarms_per_million_tokens"]
        said.append(f"{rate:.0f} alarms per million benign tokens")
    if "harmful" in alarms:
        said.append(f"{alarms['harmful']['tokens_leaked']['share']:.1%} of harmful tokens released")
    if alarms["tokens_until_alarm"] is not None:
        quartiles = " / ".join(f"{q:.0f}" for q in alarms["tokens_until_alarm"])
        said.append(f"alarm after {quartiles} tokens (quartiles)")
    for side, found in alarms["afterwards"].items():
        said.append(f"the whole text flags {found['value']:.1%} of {side}")
    return "; ".join(said)
