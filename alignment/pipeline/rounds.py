"""Revisions round by round: what they do to the answers' verdicts and lengths, and whether a judge
prefers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..row_file import Row
from ..standin import VERDICTS, verdict
from .behaviour import bounded_mean

Preferred = Mapping[tuple[str, int], float]
"""The probability that a judge calls a revision better than its answer, by prompt and round."""


@dataclass(frozen=True)
class Round:
    """The responses of one round to one kind of prompts; round 0 holds the answers.

    Attributes:
        refusal, answer, nonsense: Shares.
        length: The mean number of characters.
        boilerplate: The share that are the most frequent response.
        changed: The share that differ from the round before.
        n_judged: How many a judge has compared with the answers of round 0.
        preferred, low, high: The mean probability of being the better one of these two, with its
            95% interval over prompts; None where nothing was judged.
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
    n_judged: int = 0
    preferred: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def rounds_of(revisions: Sequence[Row], preferred: Preferred | None = None) -> list[Round]:
    """Returns every round of every kind of prompts, in the order of the rows of `revise`."""
    at = {(row["id"], row["round"]): row["response"] for row in revisions}
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in revisions:
        kind = str(row["columns"].get("kind", "prompts"))
        groups.setdefault((row["round"], kind), []).append(row)
    judged = preferred or {}
    return [_round(number, kind, rows, at, judged) for (number, kind), rows in groups.items()]


def _round(
    number: int,
    kind: str,
    rows: Sequence[Row],
    at: dict[tuple[str, int], str],
    preferred: Preferred,
) -> Round:
    n, texts = len(rows), [row["response"] for row in rows]
    counts = Counter(map(verdict, texts))
    refusal, answer, nonsense = (counts[name] / n for name in VERDICTS)
    before = [at.get((row["id"], number - 1), row["response"]) for row in rows]
    judged = [preferred[key] for row in rows if (key := (row["id"], number)) in preferred]
    shares = bounded_mean(judged, 0.0, 1.0) if judged else (None, None, None)
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
        len(judged),
        *shares,
    )
