"""Generation in the engine's batch, where nobody watches the passes."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

import torch

from ..batching.continuous_batch import ContinuousBatch
from ..batching.row import FinishReason, Row
from ..cache.sequence_pages import SequencePages
from ..hooks.generation_step import at_step
from .decoding import Decoding


@dataclass(eq=False)
class GeneratedRow(Row):
    """A row of one call, whose errors are the call's.

    Attributes:
        text: Pieces that wait until all rows have their tokens.
    """

    text: deque[str]

    @property
    def is_over(self) -> bool:
        """False: the call ends its rows, between steps."""
        return False

    def write(self, token: int, text: str) -> None:
        """Keeps the text."""
        self.text.append(text)

    def finish(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Raises the error, if there is one."""
        self.is_finished = True
        if error is not None:
            raise error


class BatchedDecoding(Decoding):
    """Sequences under way in the engine's batch, alone in it.

    If hook functions or overrides come in meanwhile, the passes that follow are those of
    `Decoding`.
    """

    def run(self) -> None:
        """Runs steps until every sequence has ended."""
        batch, rows = self._begin()
        while True:
            self._take_step(batch)
            wanted = self._wanted()
            if not wanted:
                return
            if self.model.is_watched:
                cache = batch.cache_of([rows[row] for row in self._rows])
                real_bP = torch.ones(len(self._rows), 1, dtype=torch.bool, device="cpu")
                self._go_on(cache, real_bP)
                return
            if len(wanted) < len(self._rows):
                for row in set(self._rows).difference(wanted):
                    batch.end(rows[row], "length")
                self._rows = wanted

    def _begin(self) -> tuple[ContinuousBatch[GeneratedRow], list[GeneratedRow]]:
        """A batch in which every row waits; those with the same prompt for the first of them."""
        if not all(sequence.prompt for sequence in self.sequences):
            raise ValueError("tokens: empty prompt")
        rows = [
            GeneratedRow(sequence, self.chooser, place, self._held[place])
            for place, sequence in enumerate(self.sequences)
        ]
        batch: ContinuousBatch[GeneratedRow] = ContinuousBatch(
            self.model,
            SequencePages(self.model),
            max_running=len(rows),
            token_budget=sys.maxsize,
        )
        readers = self._readers()
        for first in dict.fromkeys(readers):
            others = [row for row, reader in zip(rows, readers, strict=True) if reader == first]
            batch.queues.add(rows[first], others[1:])
        return batch, rows

    def _take_step(self, batch: ContinuousBatch[GeneratedRow]) -> None:
        try:
            with at_step(self._step()):
                batch.step()
        finally:
            self.n_passes = batch.counts.passes
        self._let_out(0)
