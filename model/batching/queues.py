"""The rows of a batch, by where they are."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from .row import R


@dataclass
class Queues(Generic[R]):
    """Rows by where they are. Oldest first, in each."""

    waiting: deque[R] = field(default_factory=deque)
    running: list[R] = field(default_factory=list)
    siblings: dict[R, list[R]] = field(default_factory=dict)
    """Rows that wait until another one has run the prompt that they have in common."""

    def all(self) -> list[R]:
        """Returns every row, those that run first."""
        later = [row for rows in self.siblings.values() for row in rows]
        return [*self.running, *self.waiting, *later]

    def add(self, first: R, others: Sequence[R]) -> None:
        """Has a row wait, and others with the same prompt for it."""
        self.waiting.append(first)
        if others:
            self.siblings[first] = list(others)

    def run(self, row: R) -> None:
        """Counts a row that waits nowhere among those that run."""
        insort(self.running, row, key=_place)

    def free(self, siblings: Sequence[R]) -> None:
        """Has rows that waited for another one wait no longer than anybody else."""
        self.waiting.extendleft(reversed(siblings))

    def remove(self, row: R) -> None:
        """Takes a row out, wherever it is; those that wait for it are next."""
        self.free(self.siblings.pop(row, []))
        for rows in (self.running, self.waiting, *self.siblings.values()):
            if row in rows:
                rows.remove(row)


def _place(row: R) -> int:
    return row.place
