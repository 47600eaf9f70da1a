"""Two builds of bitlens in pairs: the same tasks, a process each, in turns; ratios of their times.

`python -m bitlens.benchmarks decode --against CHECKOUT` shows whether a change made bitlens slower.
Each build is measured by its own contender, so a change of the API between them does no harm.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from .builds import Build, build_of, this_build
from .race import Entry, Race, Workers, race
from .suites import Options, Suite, threads_text

PAIRED = (Suite.decode, Suite.prefill, Suite.hooks)
"""The suites whose tasks are paired."""

CONFIDENCE = 0.95

_STREAMS = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post"]


@dataclass(frozen=True)
class Task:
    """A contender's method, its arguments, and the numbers of it that are compared."""

    title: str
    name: str
    args: dict[str, Any]
    metrics: tuple[str, ...] = ("seconds",)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a task took in both builds.

    Attributes:
        what: The task, its dtype and threads.
        ours, theirs: Seconds of each round in this build and in the checkout's.
        disturbed: Rounds during which other processes used the machine.
    """

    what: str
    ours: list[float]
    theirs: list[float]
    disturbed: int = 0

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: over 1 where this build is faster."""
        return statistics.median(self._ratios())

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds on the ratio's true median, as `median_interval` gives them."""
        return median_interval(self._ratios())

    @property
    def verdict(self) -> str:
        """ "faster" or "slower" if the interval excludes 1, else "no difference shown"."""
        low, high = self.interval
        if low > 1:
            return "faster"
        return "slower" if high < 1 else "no difference shown"

    def _ratios(self) -> list[float]:
        return [theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True)]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the narrowest symmetric order statistics that hold the median at CONFIDENCE.

    The number of values below the true median is binomial(n, 1/2), whatever their distribution.
    With fewer than 6 values no order statistics suffice: the bounds are 0 and infinity.
    """
    n, ordered = len(values), sorted(values)
    outside, left_out = 0.0, 0
    while True:
        outside += 2 * math.comb(n, left_out) / 2**n
        if outside > 1 - CONFIDENCE:
            break
        left_out += 1
    return (ordered[left_out - 1], ordered[-left_out]) if left_out else (0.0, math.inf)


def pairs(suites: Sequence[Suite], checkout: Path, options: Options) -> Iterator[Pair]:
    """Yields every task of the suites, as it is measured, in this build and in a checkout's.

    Raises:
        ValueError: A suite is not in PAIRED, or the checkout has no build.
    """
    if unpaired := [suite.value for suite in suites if suite not in PAIRED]:
        raise ValueError(
            f"{', '.join(unpaired)}: not paired with another build; choose from {', '.join(PAIRED)}"
        )
    builds = {"ours": this_build(), "theirs": build_of(checkout)}
    with Workers() as workers:
        for threads in options.threads:
            for dtype in options.dtypes:
                setting = {"model": options.model, "threads": threads, "dtype": dtype}
                for suite in suites:
                    for task in _tasks(suite, options):
                        result = _race(workers, builds, task, setting, options.rounds)
                        yield from _compared(result, task, f"{dtype}, {threads_text(threads)}")


def table(rows: Sequence[Pair]) -> Table:
    """Returns the pairs as a table for the terminal."""
    out = Table(title="this build against the checkout's", title_justify="left")
    for column in ("what", "this build", "checkout", "ratio", "interval", "verdict"):
        out.add_column(column, overflow="fold")
    for row in rows:
        low, high = row.interval
        out.add_row(
            row.what,
            *(f"{statistics.median(side) * 1e3:.2f} ms" for side in (row.ours, row.theirs)),
            f"{row.ratio:.3f}x",
            f"{low:.3f} to {high:.3f}" + (f" ({row.disturbed} disturbed)" * (row.disturbed > 0)),
            row.verdict,
        )
    return out


def _tasks(suite: Suite, options: Options) -> list[Task]:
    n_tokens = {"n_tokens": options.size(512, 16)}
    match suite:
        case Suite.decode:
            sizes = {"n_prompt": options.size(32, 4), "n_new": options.size(64, 2)}
            return [Task("decode a token", "decode", sizes, ("loop", "generate"))]
        case Suite.prefill:
            return [
                Task("prefill, every position", "prefill", n_tokens),
                Task("prefill, last position", "first_token", n_tokens),
            ]
        case _:
            kept = {"every residual stream": _STREAMS, "every default hook": None}
            return [
                Task(f"keep {title}", "run_with_cache", {"suffixes": suffixes, **n_tokens})
                for title, suffixes in kept.items()
            ]


def _race(
    workers: Workers, builds: dict[str, Build], task: Task, setting: dict[str, Any], rounds: int
) -> Race:
    """Runs a task in both builds in turns."""
    entries = {
        side: Entry(
            workers.get("bitlens", environment=build.environment, **setting), task.name, task.args
        )
        for side, build in builds.items()
    }
    return race(entries, rounds)


def _compared(result: Race, task: Task, setting: str) -> Iterator[Pair]:
    for metric in task.metrics:
        way = "" if metric == "seconds" else f" ({metric})"
        yield Pair(
            what=f"{task.title}{way}, {setting}",
            ours=result.values("ours", metric),
            theirs=result.values("theirs", metric),
            disturbed=result.disturbed,
        )
