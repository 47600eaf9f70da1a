"""One run of an evaluation: what each item scored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any


class EvaluationError(ValueError):
    """A run cannot be read, or two runs cannot be paired."""


@dataclass(frozen=True)
class Item:
    """The score of one item.

    Attributes:
        score: The mean over its repetitions.
        cluster: Items with equal clusters may resemble each other: a document with many questions.
        prompt: Digest of what was asked and what was expected; None where the run does not say.
    """

    score: float
    cluster: Hashable
    prompt: str | None


@dataclass
class EvaluationRun:
    """Items by task and id.

    A task is named as its harness names it, with the metric, and with the filter where it has one:
    "gsm8k exact_match (strict-match)".
    """

    source: str
    tasks: dict[str, dict[Hashable, Item]] = field(default_factory=dict)

    def add(
        self,
        task: str,
        key: Hashable,
        score: Any,
        *,
        cluster: Hashable = None,
        prompt: str | None = None,
    ) -> None:
        """Adds an item.

        Raises EvaluationError for an id that the task has already and for a score that is not a
        finite number.
        """
        items = self.tasks.setdefault(task, {})
        if key in items:
            raise EvaluationError(f"{self.source}: task {task!r} has two items of id {key!r}")
        if not isinstance(score, bool | int | float) or not math.isfinite(score):
            raise EvaluationError(
                f"{self.source}: item {key!r} of task {task!r} scored {score!r}: expected a finite "
                "number"
            )
        own = key if cluster is None else ("cluster", cluster)
        items[key] = Item(float(score), own, prompt)


def digest(*parts: Any) -> str:
    """Returns the SHA-256 of JSON-ready values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def named(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns a field of a row. Raises EvaluationError naming the row if it has none."""
    if name not in row:
        raise EvaluationError(
            f"{where}: no field {name!r}; it has {', '.join(sorted(row)) or 'none'}"
        )
    return row[name]


def as_key(value: Any, where: str) -> Hashable:
    """Returns an id. Raises EvaluationError for one that is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise EvaluationError(f"{where}: id {value!r}: expected text or a whole number")
    return value
