"""The examples of a run, in the order that its seed fixes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Generic, TypeVar

E = TypeVar("E")


class Dataset(Generic[E]):
    """Examples to train on, gone through again and again, and those held out.

    Attributes:
        held_out: Not trained on.
    """

    def __init__(self, examples: Sequence[E], *, held_out: int, seed: int) -> None:
        """Raises ValueError where nothing is left to train on."""
        if held_out >= len(examples):
            raise ValueError(
                f"held_out = {held_out}: of {len(examples)} examples, so none is left to train on"
            )
        order = _shuffled(len(examples), f"{seed} held out")
        self.held_out = [examples[i] for i in order[:held_out]]
        self._examples = [examples[i] for i in sorted(order[held_out:])]
        self._seed = seed
        self._last: tuple[int, list[int]] = (-1, [])

    def batch(self, step: int, size: int) -> list[E]:
        """Returns the examples of a step, counted from 1; each pass has an order of its own."""
        n = len(self._examples)
        places = [divmod(place, n) for place in range((step - 1) * size, step * size)]
        return [self._examples[self._order(epoch)[at]] for epoch, at in places]

    def _order(self, epoch: int) -> list[int]:
        if self._last[0] != epoch:
            self._last = epoch, _shuffled(len(self._examples), f"{self._seed} {epoch}")
        return self._last[1]


def _shuffled(n: int, salt: str) -> list[int]:
    """0 .. n - 1 by the SHA-256 of salt and number."""
    return sorted(range(n), key=lambda i: hashlib.sha256(f"{salt} {i}".encode()).digest())
