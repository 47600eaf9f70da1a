"""A progress bar for work that takes longer than one waits in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 2.0
"""Seconds without a bar."""

T = TypeVar("T")


def track(items: Sequence[T], what: str, console: Console | None = None) -> Iterator[T]:
    """Yields the items; shows how many are done and the time left once it takes over 2 s.

    The bar appears on stderr, on a terminal or in a notebook only, and vanishes at the end.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=len(items), visible=False)
        started = time.monotonic()
        for i, item in enumerate(items):
            yield item
            shown = console.is_terminal or console.is_jupyter
            if shown and time.monotonic() - started > PATIENCE:
                bar.update(task, completed=i + 1, visible=True, refresh=True)


Report = Callable[[str, int, int], None]
"""Called with a stage, its steps done and its steps in all."""


@contextmanager
def stage_bars(report: Report | None = None, console: Console | None = None) -> Iterator[Report]:
    """Yields `report`, or a function like it that shows the running stage as `track` does."""
    if report is not None:
        yield report
        return
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, visible=False)
        started = time.monotonic()
        running = ""

        def show(stage: str, done: int, total: int) -> None:
            nonlocal running
            if stage != running:
                running = stage
                bar.reset(task, description=stage, visible=False)
            late = time.monotonic() - started > PATIENCE
            if late and (console.is_terminal or console.is_jupyter):
                known = total if total > 1 else None
                bar.update(task, completed=done, total=known, visible=True, refresh=True)

        yield show
