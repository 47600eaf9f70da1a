"""Shares of right answers, with exact intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...precision.statistics import Interval, clopper_pearson
from .answer import Answer, Choice


@dataclass(frozen=True)
class CategoryShares:
    """The answers to one category.

    Attributes:
        n: Questions.
        cut: Answers that their length ended; they are wrong where a call was asked for.
        fitting: Of the others, those that fit the schemas.
        right: Answers that are right by the leaderboard's rules.
        interval: Of the share of right ones, exact, at 95%.
        faults: Why the others are wrong, the most frequent first.
        prompt_tokens, output_tokens: In all.
    """

    category: str
    choice: Choice
    n: int
    cut: int
    fitting: int
    right: int
    interval: Interval
    faults: Mapping[str, int]
    prompt_tokens: int
    output_tokens: int

    @property
    def all_fit(self) -> bool:
        """Whether every answer that its length did not end fits."""
        return self.fitting == self.n - self.cut

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return {**asdict(self), "all_fit": self.all_fit}


def shares(answers: Iterable[Answer]) -> list[CategoryShares]:
    """Returns the shares of each category, in the order of the answers."""
    parts: dict[tuple[str, Choice], list[Answer]] = {}
    for answer in answers:
        parts.setdefault((answer.category, answer.choice), []).append(answer)
    return [_shares(*key, part) for key, part in parts.items()]


def _shares(category: str, choice: Choice, answers: list[Answer]) -> CategoryShares:
    whole = [answer for answer in answers if answer.finish_reason != "length"]
    faults = Counter(answer.fault for answer in answers if answer.fault is not None)
    right = len(answers) - faults.total()
    return CategoryShares(
        category,
        choice,
        len(answers),
        len(answers) - len(whole),
        sum(answer.misfit is None for answer in whole),
        right,
        clopper_pearson(right, len(answers)),
        dict(faults.most_common()),
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.output_tokens for answer in answers),
    )
