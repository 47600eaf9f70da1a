"""The samples of an engine, by where they are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .row import Row


@dataclass
class Queues:
    """Samples by where they are. Oldest first, in each."""

    waiting: deque[Row] = field(default_factory=deque)
    running: list[Row] = field(default_factory=list)
    siblings: dict[Row, list[Row]] = field(default_factory=dict)
    """Samples that wait until their request's first one has run the prompt."""

    def all(self) -> list[Row]:
        """Returns every sample, those that run first."""
        later = [row for rows in self.siblings.values() for row in rows]
        return [*self.running, *self.waiting, *later]

    def remove(self, row: Row) -> None:
        """Takes a sample out, wherever it is; those that wait for it are next."""
        self.waiting.extendleft(reversed(self.siblings.pop(row, [])))
        for rows in (self.running, self.waiting, *self.siblings.values()):
            if row in rows:
                rows.remove(row)
