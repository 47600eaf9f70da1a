"""`bitlens redteam`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import out, print_json, show
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..alignment.red_team import Confusion, Judge, RedTeamReport
    from ..model import HookedTransformer


class JudgeName(StrEnum):
    rules = "rules"
    ngrams = "ngrams"
    probe = "probe"
    standin = "standin"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens redteam smollm2-135m-instruct -o runs/standin"
        "  |  bitlens redteam MODEL --prompts strongreject+rho-overrefusal --templates pyrit",
    )(redteam)


def redteam(
    model: Model,
    prompts: Annotated[
        str,
        typer.Option(
            help="standin, standin:quassite, advbench, strongreject, do-not-answer, "
            "rho-overrefusal, rho-refusal, a .jsonl file, or several joined by +."
        ),
    ] = "standin",
    templates: Annotated[
        str, typer.Option(help="none, standin, standin-seen or pyrit.")
    ] = "standin",
    n: Annotated[int, typer.Option("--n", min=2, help="Prompts of each kind.")] = 50,
    n_templates: Annotated[int, typer.Option(min=1, help="Templates, at most.")] = 8,
    judge: Annotated[
        JudgeName | None,
        typer.Option(help="What tells refusals from answers; default: standin, or rules."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Answers with labels that the judge is fitted to or measured on: pyrit-refusal, "
            "or a .jsonl file of text and label. Default: pyrit-refusal, unless judge is standin."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same rows.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; a run goes on there.")
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Attack a model with requests that it should refuse, plain and inside templates.

    Beside each template's success stands what it costs near misses and benign requests in the same
    words. Texts of prompts that are not the stand-in's are written nowhere (docs/red_team.md).
    """
    from ..alignment.red_team import open_prompts, open_templates
    from ..alignment.red_team import redteam as attack

    found = open_prompts(prompts)
    around = open_templates(templates, n_templates, seed)
    loaded = load_model(model, dtype, threads=threads)
    only_standin = all(prompt.row == "standin" for prompt in found)
    name = judge or (JudgeName.standin if only_standin else JudgeName.rules)
    judging, confusion = _judge(name, labels, loaded)
    with progress_bars() as advance:
        report = attack(
            loaded, judge=judging, prompts=found, templates=around, n=n, seed=seed,
            max_new_tokens=max_new_tokens, temperature=temperature, confusion=confusion,
            output=output, progress=lambda done, total: advance("rows", done, total),
        )  # fmt: skip
    if as_json:
        print_json(**report.as_dict())
        return
    _print(report)
    if output is not None:
        out.print(f"{output / 'report.html'}", soft_wrap=True)


def _judge(
    name: JudgeName, labels: str | None, model: HookedTransformer
) -> tuple[Judge, Confusion | None]:
    """The judge, and its errors on labelled answers that it was not fitted to."""
    from ..alignment import red_team
    from ..interp.probes.data import Dataset, open_dataset

    if labels is None and name is JudgeName.standin:
        return red_team.StandInJudge(), None
    labelled = open_dataset(labels or "pyrit-refusal")
    if name in (JudgeName.rules, JudgeName.standin):
        rules = name is JudgeName.rules
        fixed: Judge = red_team.RuleJudge() if rules else red_team.StandInJudge()
        return fixed, red_team.measure(fixed, labelled)

    def fit(data: Dataset) -> Judge:
        if name is JudgeName.probe:
            return red_team.ProbeJudge.fit(model, data)
        return red_team.NgramJudge.fit(data.texts, [example.label for example in data])

    return fit(labelled), red_team.measure_fitted(fit, labelled)


def _print(report: RedTeamReport) -> None:
    from ..alignment.red_team.report import COLUMNS, percent

    table = Table(box=SIMPLE_HEAD)
    table.add_column("template")
    for head, _ in COLUMNS:
        table.add_column(head, justify="right", no_wrap=True)
    for line in report.table():
        table.add_row(escape(line["template"]), *(percent(line[name]) for _, name in COLUMNS))
    show(table)
    for text in report.remarks():
        out.print(escape(text), soft_wrap=True, highlight=False)
