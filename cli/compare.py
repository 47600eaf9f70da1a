"""`bitlens compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .console import VIOLATED, out, print_json, show
from .options import Json

if TYPE_CHECKING:
    from ..audit.evaluations import Canaries, Comparison, EvaluationPlan, TaskComparison

RUN = "A file or folder of lm-eval (--log_samples) or Inspect, or JSONL with id and score."


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog="Examples:  bitlens compare --plan --effect 0.01 --discordance 0.05"
        "  |  bitlens compare runs/before runs/after --margin 0.01",
    )(compare)


def compare(
    run_a: Annotated[Path | None, typer.Argument(help=RUN)] = None,
    run_b: Annotated[Path | None, typer.Argument(help="The run that is judged against it.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="Show that scores differ by less than this, fixed beforehand."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Level of the tests.")] = 0.05,
    metric: Annotated[
        str | None, typer.Option(help="Metric or scorer; default: the first of each task.")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Leave out what only one run has, and count it.")
    ] = False,
    canaries: Annotated[
        Path | None,
        typer.Option(help="Add this look to those kept there; it may be looked at daily."),
    ] = None,
    planned: Annotated[
        bool, typer.Option("--plan", help="Say how many items an effect needs; reads no run.")
    ] = False,
    effect: Annotated[
        float | None, typer.Option(help="With --plan: the difference to be seen, 0.01 a point.")
    ] = None,
    discordance: Annotated[
        float | None,
        typer.Option(help="With --plan: share of items that change (default: 2 effects)."),
    ] = None,
    power: Annotated[float, typer.Option(help="With --plan: probability of seeing it.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Compare two runs of an evaluation item by item: did the model move, or the noise?

    Exit 1 if a task is worse; with --margin, if equivalence is not shown; with --canaries, if the
    evidence of all looks says that the model moved.
    """
    from ..audit.evaluations import Canaries, plan, read_run
    from ..audit.evaluations import compare as compare_runs

    if planned:
        if run_a is not None or effect is None:
            raise typer.BadParameter("--plan takes no run, and needs --effect")
        found = plan(effect, discordance, alpha, power)
        print_json(**found.as_dict()) if as_json else _print_plan(found)
        return
    if effect is not None or discordance is not None:
        raise typer.BadParameter("--effect and --discordance belong to --plan")
    if run_a is None or run_b is None:
        raise typer.BadParameter("two runs are compared; --plan alone needs none")
    a, b = read_run(run_a, metric), read_run(run_b, metric)
    result = compare_runs(a, b, margin=margin, alpha=alpha, common=common)
    looks = None
    if canaries is not None:
        looks = Canaries(canaries, alpha)
        looks.add(a, b)
    if as_json:
        print_json(**result.as_dict(), canaries=None if looks is None else _look(looks))
    else:
        _print(result)
        if looks is not None:
            _print_looks(looks)
    if not (result.passed if looks is None else not looks.moved):
        raise typer.Exit(VIOLATED)


def _print_plan(plan: EvaluationPlan) -> None:
    out.print(
        f"{plan.items:,} items, answered by both runs and compared one by one, show a difference "
        f"of {plan.effect:g} with probability {plan.power:g} where {plan.discordance:g} of all "
        f"items change (level {plan.alpha:g}).\nTwo accuracies with their own errors would need "
        f"{plan.unpaired_items:,} items each.",
        soft_wrap=True,
        highlight=False,
    )


def _print(result: Comparison) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("task")
    heads = ("items", "a", "b", "b - a", f"{1 - result.alpha:.0%} interval", "lost", "gained", "p")
    for head in (*heads, "p (Holm)", *(["p (margin)"] if result.margin else []), "detectable"):
        table.add_column(head, justify="right")
    for task in (*result.tasks, *([result] if len(result.tasks) > 1 else [])):
        table.add_row(*_cells(task))
    show(table)
    for line in _verdicts(result):
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def _cells(task: TaskComparison) -> list[str]:
    return [
        task.task,
        f"{task.items:,}",
        f"{task.score_a:.4f}",
        f"{task.score_b:.4f}",
        f"{task.difference:+.4f}",
        f"[{task.low:+.4f}, {task.high:+.4f}]",
        str(task.lost),
        str(task.gained),
        f"{task.p:.2g}",
        f"{task.holm_p:.2g}",
        *([] if task.tost_p is None else [f"{task.tost_p:.2g}"]),
        f"{task.detectable:.4f}",
    ]


def _verdicts(result: Comparison) -> list[str]:
    lines = [
        f"{verb}: {', '.join(tasks)}"
        for verb, tasks in (("worse", result.worse), ("better", result.better))
        if tasks
    ]
    if not lines:
        lines = [
            f"No difference shown. A true one of {result.detectable:.4f} would have been, "
            "with probability 0.8."
        ]
    if result.margin is not None:
        missing = result.not_shown_equivalent
        lines.append(
            f"not shown to lie within {result.margin:g}: {', '.join(missing)}"
            if missing
            else f"Every task's difference is shown to lie within {result.margin:g}."
        )
    if result.left_out:
        lines.append(f"{result.left_out} items that one run alone has were left out.")
    lines.append(
        f"Unpaired, the standard error would be {result.unpaired_error:.4f} and not "
        f"{result.standard_error:.4f}."
    )
    return lines


def _look(looks: Canaries) -> dict[str, float | int | bool]:
    interval = looks.interval()
    return {
        "looks": looks.looks,
        "values": len(looks.values),
        "evidence": looks.evidence,
        "moved": looks.moved,
        "low": interval.low,
        "high": interval.high,
    }


def _print_looks(looks: Canaries) -> None:
    interval = looks.interval()
    says = "the model moved" if looks.moved else "no evidence that it moved"
    out.print(
        f"Canaries, {looks.looks} looks: {says}; evidence {looks.evidence:.3g} of "
        f"{1 / looks.alpha:.3g}, mean difference in [{interval.low:+.4f}, {interval.high:+.4f}].",
        soft_wrap=True,
        highlight=False,
    )
