"""`bitlens think`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..policies import NativePolicyName
from .console import print_json, setting, show
from .files import check_output
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars

if TYPE_CHECKING:
    from ..model.thinking import Curve
    from ..precision.statistics import Estimate


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens think smollm2-135m-instruct --problems 12 --budgets 0,16,32"
        "  |  bitlens think MODEL --tasks mine.jsonl --budgets 0,64-64,256 --plot curve.png",
    )(think)


def think(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            help="sums, sums2 (two digits), needles:256,1024, formats, gym:NAME (extra `tasks`), "
            "or JSONL with prompt and answer."
        ),
    ] = "sums",
    problems: Annotated[int, typer.Option(min=2, help="How many of them.")] = 24,
    budgets: Annotated[
        str,
        typer.Option(help="Most tokens of thinking, or least-most, comma-separated."),
    ] = "0,32",
    n: Annotated[int, typer.Option("--n", min=1, help="Samples a problem.")] = 8,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Longest text after the thinking.")
    ] = 16,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same samples.")] = 0,
    start: Annotated[str, typer.Option(help="Opens the thinking.")] = "<think>\n",
    end: Annotated[str, typer.Option(help="Ends it.")] = "</think>",
    wait: Annotated[str, typer.Option(help="Written in place of an end that is early.")] = "Wait",
    answer_prefix: Annotated[str, typer.Option(help="Follows an end that is forced.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write every sample there, as `compare` reads them.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture; needs the `bench` extra.")
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what more thinking and more samples buy, at equal cost.

    Thinking is held to its budget to the token. Answers are read as the first number of the text,
    for sums and needles, or the whole of it; gym's and formats' verifiers judge that.
    """
    from ..audit.postmortem.plot import require_matplotlib
    from ..audit.thinking import plot as write_plot
    from ..model.thinking import ThinkingLayout, mean_logprob, measure, problems_named

    for path in (output, plot):
        if path is not None:
            check_output(path)
    if plot is not None:
        require_matplotlib()
    wanted = _budgets(budgets)
    layout = ThinkingLayout(start, end, wait, answer_prefix)
    loaded = load_model(model, dtype, threads=threads)
    chosen, read = problems_named(tasks, problems, seed=seed, tokenizer=loaded.tokenizer)
    with progress_bars() as advance:
        curve = measure(
            loaded, chosen, wanted, n=n, scorer=mean_logprob(), max_new_tokens=answer_tokens,
            temperature=temperature, seed=seed, layout=layout,
            read=read, progress=lambda done, total: advance("problems", done, total),
        )  # fmt: skip
    if output is not None:
        output.write_text("".join(json.dumps(row) + "\n" for row in curve.rows))
    if plot is not None:
        write_plot(curve, plot, f"{tasks}, {len(chosen)} problems, n = {n}")
    if as_json:
        points = [point.as_dict() for point in curve.points]
        print_json(**setting(dtype), tasks=tasks, problems=len(chosen), points=points)
    else:
        _print(curve)


def _budgets(text: str) -> list[tuple[int, int]]:
    """Returns (least, most) of each; raises typer.BadParameter for anything else."""
    found = []
    for part in text.split(","):
        least, dash, most = part.strip().partition("-")
        try:
            found.append((int(least), int(most)) if dash else (0, int(least)))
        except ValueError:
            raise typer.BadParameter(f"--budgets {part!r}: expected 32 or 16-32") from None
    return found


def _print(curve: Curve) -> None:
    table = Table(box=SIMPLE_HEAD)
    columns = (
        "budget",
        "thinking",
        "tokens",
        "mean@1",
        "majority",
        "best of n",
        "oracle",
    )
    for name in columns:
        table.add_column(name, justify="right")
    for point in curve.points:
        table.add_row(
            f"{point.min_thinking}-{point.max_thinking}",
            f"{point.thinking:.1f}",
            f"{point.tokens:.1f}",
            *(
                "" if estimate is None else _estimate(estimate)
                for estimate in (point.single, point.majority, point.chosen, point.passed)
            ),
        )
    show(table)


def _estimate(estimate: Estimate) -> str:
    interval = estimate.interval
    low, high = max(0.0, interval.low), min(1.0, interval.high)
    return f"{estimate.mean:.3f}\u00a0[{low:.2f},\u00a0{high:.2f}]"  # numbers that stay together
