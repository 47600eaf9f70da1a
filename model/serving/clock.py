"""The one clock of all ranks."""

from __future__ import annotations

import json
from collections.abc import Callable

from ..parallel import Group, from_rank_0


class SharedClock:
    """Rank 0's clock, read once a step, and its cancellations: what ranks could differ in.

    Between steps the time stands still over ranks; alone it runs. It never runs backwards.
    """

    def __init__(self, clock: Callable[[], float], group: Group | None) -> None:
        self._clock, self._group = clock, group
        self._cancelled: set[int] = set()
        self._time = -float("inf")

    def now(self) -> float:
        """Returns the time."""
        if self._group is None:
            self._time = max(self._time, self._clock())
        return self._time

    def cancel(self, number: int) -> None:
        """Notes a request to be cancelled in the next step."""
        self._cancelled.add(number)

    def tick(self) -> tuple[float, set[int]]:
        """Begins a step; returns its time and the numbers of cancelled requests."""
        if self._group is not None:
            time = max(self._time, self._clock())
            stated = from_rank_0(self._group, json.dumps([time, sorted(self._cancelled)]).encode())
            self._time, numbers = json.loads(stated)
            self._cancelled.clear()
            return self._time, set(numbers)
        cancelled, self._cancelled = self._cancelled, set()
        return self.now(), cancelled
