"""`levels`: several kinds of safety on the same prompts and seeds, in one table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...audit.evaluations import EvaluationRun, compare
from ...model.transformer import HookedTransformer
from ...precision.statistics import clustered_proportion, items_for_unpaired_difference
from ..red_team.attack import redteam
from ..red_team.confusion import share
from ..red_team.judge import Judge
from ..red_team.prompts import KINDS, PromptSet, standin_prompts
from ..red_team.report import RedTeamReport
from ..red_team.respondents import ModelRespondent, Respondent, respondent_of
from ..red_team.rules import StandInJudge
from ..red_team.templates import PLAIN, Template, open_templates
from .abilities import Task, asked, calibration, tasks, yes_or_no
from .defences import FilteredModel
from .table import ALPHA, Comparison, LevelsReport, Line, Times

TIMED_TOKENS = 16
LEAST_RUNS = 2
Progress = Callable[[str, int, int], None]


def levels(
    models: Mapping[str, HookedTransformer | Respondent],
    *,
    n: int = 200,
    seed: int = 0,
    judge: Judge | None = None,
    prompts: PromptSet | None = None,
    templates: Sequence[Template] | None = None,
    max_new_tokens: int = 48,
    n_tasks: int = 24,
    n_timed: int = 5,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> LevelsReport:
    """Asks every level the same, and compares each with the first, prompt by prompt.

    Args:
        models: By the level's name, the one without a defence first.
        n: Prompts of each kind in a cell, or as many as there are.
        judge: None takes the stand-in's.
        prompts, templates: None takes the stand-in's, and one template that no training has.
        n_tasks: Sums, instructions and facts, of each.
        n_timed: Prompts whose answers are timed, one by one.
        output: A folder with an attack's rows for each level; a run that was stopped goes on there.
        progress: Called with a level's name, rows done and rows in all.

    Raises ValueError for fewer than two levels, and as `redteam`.
    """
    if len(models) < LEAST_RUNS:
        raise ValueError("levels: at least two are compared")
    found = {name: respondent_of(model, name) for name, model in models.items()}
    drawn = (standin_prompts(n, seed=seed) if prompts is None else prompts).draw(n, seed)
    around = open_templates("standin", 1, seed) if templates is None else list(templates)
    wanted = tasks(n_tasks, seed=seed)
    reports, works = dict[str, RedTeamReport](), dict[str, dict[str, Any]]()
    for name, level in found.items():
        reports[name] = redteam(
            level, judge=judge or StandInJudge(), prompts=drawn, templates=around, n=n, seed=seed,
            max_new_tokens=max_new_tokens, output=None if output is None else Path(output) / name,
            progress=None if progress is None else _named(progress, name),
        )  # fmt: skip
        works[name] = _abilities(level, wanted, seed)
    lines = tuple(line for name in found for line in _lines(name, reports[name]))
    first, *others = found
    runs = {name: _as_run(name, reports[name], works[name], wanted) for name in found}
    timed = [p.text for p in drawn.of("benign")[:n_timed]]
    return LevelsReport(
        lines,
        {name: {k: v for k, v in each.items() if k != "right"} for name, each in works.items()},
        {name: _times(level, timed) for name, level in found.items()},
        tuple(c for name in others for c in _compared(first, name, runs)),
        n,
        unpaired_detectable(n),
    )


def unpaired_detectable(n: int) -> float:
    """Returns the smallest difference of two rates, one of them near one half, that n prompts each
    show with probability 0.8 where they are not paired: 0.14 for 200."""
    for thousandths in range(1, 500):
        if items_for_unpaired_difference(thousandths / 1000, 0.5) <= n:
            return thousandths / 1000
    return 1.0


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _lines(name: str, report: RedTeamReport) -> list[Line]:
    found = []
    for template in report.templates:
        for kind in KINDS:
            cell = report.cell(template, kind)
            if "refusal" in cell:
                interval = cell["refusal"]
                found.append(
                    Line(
                        name,
                        kind,
                        template,
                        cell["n"],
                        cell["refusal"]["value"],
                        cell["answer"]["value"],
                        cell["nonsense"]["value"],
                        interval["low"],
                        interval["high"],
                    )
                )
    return found


def _abilities(level: Respondent, wanted: Sequence[Task], seed: int) -> dict[str, Any]:
    said = asked(level, wanted, seed)
    right = [task.is_right(text) for task, text in zip(wanted, said, strict=True)]
    found: dict[str, Any] = {"right": right}
    for kind in ("sum", "instruction", "fact"):
        hits = [(r, t.prompt) for r, t in zip(right, wanted, strict=True) if t.kind == kind]
        if len({prompt for _, prompt in hits}) >= LEAST_RUNS:
            found[kind] = share(clustered_proportion(*map(list, zip(*hits, strict=True))))  # type: ignore[arg-type]
    inner = level.inner if isinstance(level, FilteredModel) else level
    if isinstance(inner, ModelRespondent):
        facts = [task for task in wanted if task.kind == "fact"]
        chances = yes_or_no(inner.model, [inner.form(task.prompt) for task in facts])
        found["calibration"] = calibration(*chances, [task.right == "yes" for task in facts])
    return found


def _times(level: Respondent, prompts: Sequence[str]) -> Times | None:
    if not isinstance(level, ModelRespondent | FilteredModel) or not prompts:
        return None
    found = [level.timed(prompt, max_new_tokens=TIMED_TOKENS) for prompt in prompts]
    return Times(
        statistics.median(a.ttft_ms or 0.0 for a in found),
        statistics.median(a.token_ms or 0.0 for a in found),
        len(found),
    )


def _as_run(
    name: str, report: RedTeamReport, works: Mapping[str, Any], wanted: Sequence[Task]
) -> EvaluationRun:
    """Refusals of every prompt, and right answers to every task, as items."""
    run = EvaluationRun(name)
    for row in report.rows:
        if row["verdict"] is not None:
            where = PLAIN.id if row["template"] == PLAIN.id else "in templates"
            refused = row["verdict"] == "refusal"
            run.add(f"refusal, {row['kind']}, {where}", row["id"], refused, cluster=row["cluster"])
    for task, right in zip(wanted, works["right"], strict=True):
        run.add(task.kind, task.id, right, cluster=task.prompt)
    return run


def _compared(first: str, name: str, runs: Mapping[str, EvaluationRun]) -> list[Comparison]:
    alpha = ALPHA / len(runs[name].tasks)
    found = compare(runs[first], runs[name], common=True, alpha=alpha)
    return [
        Comparison(name, t.task, t.items, t.difference, t.low, t.high, t.holm_p, t.detectable)
        for t in found.tasks
    ]
