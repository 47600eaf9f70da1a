"""`bitlens tools-eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..policies import NativePolicyName
from .console import VIOLATED, out, print_json, setting, show
from .files import check_output
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..audit.function_calls import CategoryShares


class Category(StrEnum):
    simple = "simple"
    multiple = "multiple"
    irrelevance = "irrelevance"


class ChoiceName(StrEnum):
    auto = "auto"
    required = "required"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "tools-eval",
        epilog="Examples:  bitlens tools-eval smollm2-135m-instruct -o answers.jsonl"
        "  |  bitlens tools-eval MODEL --category simple --limit 50 --choice auto",
    )(tools_eval)


def tools_eval(
    model: Model,
    category: Annotated[
        list[Category] | None, typer.Option(help="Ask these alone; may be repeated.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many of each category.")
    ] = None,
    choice: Annotated[
        ChoiceName | None,
        typer.Option(
            help="auto: an answer may be text; required: it is one call. Default: required, and "
            "auto for irrelevance, where nothing should be called."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    max_running: Annotated[
        int, typer.Option(min=1, help="Questions at a time; no answer depends on it.")
    ] = 32,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="JSONL of answers; a run goes on there, `compare` pairs two."
        ),
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Ask the function-calling leaderboard's questions (BFCL): does the model call the right one?

    Calls are held to their schemas; exit code 1 if one does not fit (docs/tool_calling.md).
    """
    from ..audit.function_calls import ask, read_questions, shares

    if output is not None:
        check_output(output)
    named = [each.value for each in category or Category]
    questions = [question for name in named for question in read_questions(name)[:limit]]
    loaded = load_model(model, dtype, threads=threads)
    with progress_bars() as advance:
        answers = ask(
            loaded, questions, choice=None if choice is None else choice.value,
            max_new_tokens=max_new_tokens, max_running=max_running, output=output,
            progress=lambda done, total: advance("questions", done, total),
        )  # fmt: skip
    found = shares(answers)
    if as_json:
        print_json(**setting(dtype), categories=[each.as_dict() for each in found])
    else:
        _print(found)
    raise typer.Exit(0 if all(each.all_fit for each in found) else VIOLATED)


def _print(found: list[CategoryShares]) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("category")
    for name in ("choice", "questions", "cut by length", "others that fit", "right", "95%"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        low, high = each.interval.low, each.interval.high
        table.add_row(
            each.category, each.choice, f"{each.n}", f"{each.cut}",
            f"{each.fitting} of {each.n - each.cut}", f"{each.right / each.n:.1%}",
            f"{low:.1%} to {high:.1%}",
        )  # fmt: skip
    show(table)
    for each in found:
        wrong = ", ".join(f"{fault} {n}" for fault, n in each.faults.items())
        if wrong:
            out.print(f"{each.category}, wrong: {wrong}", soft_wrap=True, highlight=False)
