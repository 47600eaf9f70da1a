"""Revisions round by round: what they do to the answers' verdicts and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..row_file import Row
from ..standin import VERDICTS, verdict


@dataclass(frozen=True)
class Round:
    """The responses of one round to one kind of prompts; round 0 holds the answers.

    Attributes:
        refusal, answer, nonsense: Shares.
        length: The mean number of characters.
        boilerplate: The share that are the most frequent response.
        changed: The share that differ from the round before.
    """

    number: int
    kind: str
    n: int
    refusal: float
    answer: float
    nonsense: float
    length: float
    boilerplate: float
    changed: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def rounds_of(revisions: Sequence[Row]) -> list[Round]:
    """Returns every round of every kind of prompts, in the order of the rows of `revise`."""
    at = {(row["id"], row["round"]): row["response"] for row in revisions}
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in revisions:
        kind = str(row["columns"].get("kind", "prompts"))
        groups.setdefault((row["round"], kind), []).append(row)
    return [_round(number, kind, rows, at) for (number, kind), rows in groups.items()]


def _round(number: int, kind: str, rows: Sequence[Row], at: dict[tuple[str, int], str]) -> Round:
    n, texts = len(rows), [row["response"] for row in rows]
    counts = Counter(map(verdict, texts))
    refusal, answer, nonsense = (counts[name] / n for name in VERDICTS)
    before = [at.get((row["id"], number - 1), row["response"]) for row in rows]
    return Round(
        number,
        kind,
        n,
        refusal,
        answer,
        nonsense,
        sum(map(len, texts)) / n,
        Counter(texts).most_common(1)[0][1] / n,
        sum(a != b for a, b in zip(texts, before, strict=True)) / n,
    )
