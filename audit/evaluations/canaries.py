"""Canaries that may be looked at daily: evidence that holds whenever one stops."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

from ...precision.statistics import EProcess, Interval, confidence_sequence
from .files import read_lines
from .items import EvaluationError, EvaluationRun, digest, named
from .pairing import pair


class Canaries:
    """Paired differences of scores in [0, 1], collected over any number of looks.

    An e-process bets that the mean difference is not 0. However often one looks, it says "moved" of
    a model that did not move with probability at most alpha (Ville's inequality). A cluster counts
    once a look, by the mean of its items. Two looks at the same items with fixed bits are the same
    evidence, so a look that was added before is refused.

    Args:
        path: JSONL that keeps the looks, a line each; made where it is not there.
        alpha: The level.

    Raises EvaluationError for a file that holds something else.
    """

    def __init__(self, path: str | Path, alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha = {alpha}: expected a number between 0 and 1")
        self.path, self.alpha = Path(path), alpha
        self.values: list[float] = []
        self._looks: set[str] = set()
        self._up, self._down = EProcess(0.5), EProcess(0.5)
        self._largest = 1.0
        if self.path.exists():
            for where, row in read_lines(self.path):
                self._take(_values(row, where), str(named(row, "look", where)))

    def add(self, a: EvaluationRun, b: EvaluationRun) -> None:
        """Adds a look: the reference's run and today's. Writes it before it counts.

        Raises EvaluationError where the runs do not pair, a score is outside [0, 1], or this look
        was added before.
        """
        values, identity = [], []
        for task, pairs in pair(a, b).items():
            sums: dict[Hashable, float] = {}
            for difference, cluster in zip(pairs.differences, pairs.clusters, strict=True):
                sums[cluster] = sums.get(cluster, 0.0) + difference
            sizes = Counter(pairs.clusters)
            values += [total / sizes[cluster] for cluster, total in sums.items()]
            identity.append((task, sorted((str(k), i.score) for k, i in b.tasks[task].items())))
        if not all(-1 <= value <= 1 for value in values):
            raise EvaluationError(f"{b.source}: scores of canaries lie in [0, 1]")
        look = digest(a.source, b.source, identity)
        if look in self._looks:
            raise EvaluationError(f"{self.path}: the look at {b.source} was added before")
        line = json.dumps({"look": look, "differences": values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(values, look)

    @property
    def looks(self) -> int:
        """Returns how many looks were added."""
        return len(self._looks)

    @property
    def evidence(self) -> float:
        """Returns the largest e-value so far against "the mean difference is 0"."""
        return self._largest

    @property
    def moved(self) -> bool:
        """Returns whether the model moved, at level alpha over all looks together."""
        return self._largest >= 1 / self.alpha

    def interval(self) -> Interval:
        """Returns an interval of the mean difference that is right at all looks at once."""
        if not self.values:
            return Interval(-1.0, 1.0, 1 - self.alpha)
        found = confidence_sequence([(v + 1) / 2 for v in self.values], 1 - self.alpha)
        return Interval(2 * found.low - 1, 2 * found.high - 1, 1 - self.alpha)

    def _take(self, values: list[float], look: str) -> None:
        self._looks.add(look)
        self.values += values
        for value in values:
            up, down = self._up.update((1 + value) / 2), self._down.update((1 - value) / 2)
            self._largest = max(self._largest, (up + down) / 2)


def _values(row: dict[str, object], where: str) -> list[float]:
    values = named(row, "differences", where)
    if not isinstance(values, list) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and -1 <= v <= 1 for v in values
    ):
        raise EvaluationError(f"{where}: differences: expected a list of numbers in [-1, 1]")
    return [float(value) for value in values]
