"""Items of two runs, paired by id."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from pathlib import Path

from .items import EvaluationError, EvaluationRun, Item


@dataclass(frozen=True)
class Pairs:
    """Scores of one task's shared items, in one order.

    Attributes:
        left_out: Items that one run alone has, where leaving them out was asked for.
    """

    a: list[float]
    b: list[float]
    clusters: list[Hashable]
    left_out: int = 0

    @property
    def differences(self) -> list[float]:
        """Returns the score of b minus that of a, an item each."""
        return [b - a for a, b in zip(self.a, self.b, strict=True)]


def pair(a: EvaluationRun, b: EvaluationRun, *, common: bool = False) -> dict[str, Pairs]:
    """Returns pairs by task.

    Args:
        common: Compares the tasks and items that both runs have; otherwise one that only one run
            has is an error, as what is missing is seldom missing by chance.

    Raises EvaluationError naming what does not pair: tasks, ids, or two prompts under one id.
    """
    tasks = [task for task in a.tasks if task in b.tasks]
    alone = [task for task in (*a.tasks, *b.tasks) if task not in tasks]
    if not tasks or (alone and not common):
        raise EvaluationError(
            f"only one of the runs has {_some(alone, 'task')}"
            + (f"; both have {_some(tasks, 'task')}: `common` compares those" if tasks else "")
        )
    return {task: _pair(task, a, b, common) for task in tasks}


def _pair(task: str, a: EvaluationRun, b: EvaluationRun, common: bool) -> Pairs:
    ours, theirs = a.tasks[task], b.tasks[task]
    shared = [key for key in ours if key in theirs]
    left_out = len(ours) + len(theirs) - 2 * len(shared)
    if left_out and not common:
        missing = [key for key in ours if key not in theirs]
        extra = [key for key in theirs if key not in ours]
        raise EvaluationError(
            f"task {task!r}: "
            + " and ".join(
                f"{Path(run.source).name} alone has {_some(keys, 'id')}"
                for run, keys in ((a, missing), (b, extra))
                if keys
            )
            + "; `common` compares what both have"
        )
    if not shared:
        raise EvaluationError(f"task {task!r}: the runs share no id")
    for key in shared:
        _require_same(task, key, ours[key], theirs[key])
    return Pairs(
        [ours[key].score for key in shared],
        [theirs[key].score for key in shared],
        [ours[key].cluster for key in shared],
        left_out,
    )


def _require_same(task: str, key: Hashable, a: Item, b: Item) -> None:
    if a.prompt is not None and b.prompt is not None and a.prompt != b.prompt:
        raise EvaluationError(
            f"task {task!r}, id {key!r}: the runs asked different things under one id (another "
            "version of the task, another template or number of shots): not comparable"
        )
    if a.cluster != b.cluster:
        raise EvaluationError(f"task {task!r}, id {key!r}: the runs put it in different clusters")


def _some(names: Collection[Hashable], kind: str) -> str:
    first = ", ".join(repr(name) for name in list(names)[:3])
    more = "" if len(names) <= 3 else f" and {len(names) - 3} more"
    return f"{len(names)} {kind}{'s' * (len(names) != 1)}: {first}{more}" if names else f"no {kind}"
