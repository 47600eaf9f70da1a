"""`bitlens cai many-shot`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..policies import NativePolicyName
from .console import out, print_json, show
from .loading import load_model
from .model_argument import Model
from .options import Json, NativeDtypeOption, Threads
from .progress import progress_bars


def register(app: typer.Typer) -> None:
    """Adds the command to its group."""
    app.command(
        name="many-shot",
        epilog="Example:  bitlens cai many-shot smollm2-135m-instruct --shots 1,4,16,64",
    )(many_shot)


def many_shot(
    model: Model,
    shots: Annotated[
        str, typer.Option(help="Numbers of shots, comma-separated.")
    ] = "1,2,4,8,16,32,64,128,256",
    n: Annotated[int, typer.Option("--n", min=2, help="Requests.")] = 50,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same prompts.")] = 0,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how many answered requests in a prompt it takes to override a refusal.

    On the stand-in alone. The shots are shared through the prefix cache.
    """
    from ..alignment.red_team import StandInJudge
    from ..alignment.red_team import many_shot as measure

    loaded = load_model(model, dtype, threads=threads)
    with progress_bars() as advance:
        curve = measure(
            loaded, judge=StandInJudge(), shots=_numbers(shots), n=n, seed=seed,
            max_new_tokens=max_new_tokens,
            progress=lambda done, total: advance("shots", done, total),
        )  # fmt: skip
    if as_json:
        print_json(**curve.as_dict())
        return
    table = Table(box=SIMPLE_HEAD)
    for head in ("shots", "answered", "95% interval", "gain", "tokens", "from cache"):
        table.add_column(head, justify="right", no_wrap=True)
    for point in curve.points:
        low, high = point.success.interval.low, point.success.interval.high
        cached = point.cached_tokens / max(point.prompt_tokens, 1)
        table.add_row(
            str(point.shots), f"{point.success.mean:.0%}", f"[{low:.0%}, {high:.0%}]",
            "" if point.gain is None else f"{point.gain.mean:+.2f}",
            f"{point.prompt_tokens:,}", f"{cached:.0%}",
        )  # fmt: skip
    show(table)
    if curve.left_out:
        out.print(f"Beyond the context: {', '.join(map(str, curve.left_out))} shots.")


def _numbers(text: str) -> list[int]:
    """Returns the numbers; raises typer.BadParameter for anything else."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--shots {text!r}: expected numbers such as 1,4,16")
    return found
