"""The part of a run that differs from method to method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .examples import ExampleReader, Row

Metrics = dict[str, Any]


class Method(Protocol):
    """A way to train: its examples, and how gradients arise from them."""

    def examples(self, row: Row, reader: ExampleReader) -> Sequence[Any]:
        """Makes the examples of a row; ValueError says what is wrong with it."""
        ...

    def backward(self, batch: Sequence[Any], step: int) -> tuple[Metrics, bool]:
        """Adds a step's gradients to the weights'; returns metrics, "loss" and "tokens" among
        them, and whether there is something to learn."""
        ...

    def held_out(self, examples: Sequence[Any]) -> Mapping[str, float]:
        """Returns what the model makes of examples that it is not trained on."""
        ...
