"""Scores that know nothing of what an answer says: its length, and which words it has."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..preferences.pairs import AnswerPair


class Score(Protocol):
    """A number for an answer to a prompt."""

    def __call__(self, prompt: str, text: str) -> float: ...


@dataclass(frozen=True)
class LengthScore:
    """The length of an answer, or its negative: whichever was right more often in training."""

    sign: float

    @classmethod
    def fitted(cls, pairs: Sequence[AnswerPair]) -> LengthScore:
        """Looks whether longer or shorter answers are better among pairs whose truth is known."""
        known = [p for p in pairs if p.truth is not None]
        lead = sum(
            math.copysign(1, (p.truth or 0.0) - 0.5) * (len(p.first) - len(p.second)) for p in known
        )
        return cls(1.0 if lead >= 0 else -1.0)

    def __call__(self, prompt: str, text: str) -> float:
        """Returns the signed number of characters."""
        return self.sign * len(text)


@dataclass(frozen=True)
class WordScore:
    """The summed log-odds of the words and pairs of words of an answer, as better ones have them.

    Counts are whole numbers and sums are exact, so the score has fixed bits.
    """

    odds: dict[str, float]

    @classmethod
    def fitted(cls, pairs: Sequence[AnswerPair]) -> WordScore:
        """Counts the words of better and of worse answers, of pairs whose truth is known."""
        better: Counter[str] = Counter()
        worse: Counter[str] = Counter()
        for pair in pairs:
            if pair.truth is None:
                continue
            one, other = (pair.first, pair.second)[:: 1 if pair.truth > 0.5 else -1]
            better.update(set(_grams(one)))
            worse.update(set(_grams(other)))
        names = sorted({*better, *worse})
        return cls({name: math.log((better[name] + 1) / (worse[name] + 1)) for name in names})

    def __call__(self, prompt: str, text: str) -> float:
        """Returns the sum over the different words and pairs of words."""
        return math.fsum(self.odds.get(gram, 0.0) for gram in sorted(set(_grams(text))))


def _grams(text: str) -> Iterable[str]:
    words = re.findall(r"\w+", text.lower())
    yield from words
    yield from (f"{a} {b}" for a, b in itertools.pairwise(words))
