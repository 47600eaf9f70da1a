"""A reviser and a judge with known rules, in the place of a model's own judgement: what training
does can then be told from what a small model fails to see.

They take every principle for the stand-in's rules but those of the constitution "unrelated", by
which they change and prefer nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .constitution import Comparison, Constitution, Critique
from .draws import draw_seed
from .preferences.judges import Choice, Question
from .revision import Draft, ModelReviser
from .standin.planted import criticised, is_better, revised, standin_of

NOTHING = "There is nothing to say."


@cache
def _unrelated() -> frozenset[Critique | Comparison]:
    found = Constitution.load("unrelated")
    return frozenset([*found.critiques, *found.comparisons])


class PlantedReviser(ModelReviser):
    """Answers by the model; criticises and revises by the stand-in's rules, unless the
    principle that was drawn is unrelated."""

    @property
    def identity(self) -> dict[str, Any]:
        """The model's, under another name."""
        return {**super().identity, "reviser": "planted"}

    def critiques(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns which verdict each response has, and which one is wanted."""
        return [
            criticised(standin_of(draft.row), draft.response) if _follows(draft) else NOTHING
            for draft in drafts
        ]

    def revisions(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns the response where its verdict is wanted, an ideal answer elsewhere."""
        return [
            revised(standin_of(draft.row), draft.response) if _follows(draft) else draft.response
            for draft in drafts
        ]


def _follows(draft: Draft) -> bool:
    return draft.pair not in _unrelated()


@dataclass(frozen=True)
class PlantedJudge:
    """Chooses the answer whose verdict is wanted; neither where the instruction is unrelated.

    Attributes:
        accuracy: How often it does, over pairs; the pair's id decides.
        order_bias: Added to ln p(A) - ln p(B), whatever (A) is.
        confidence: The probability of its choice.
    """

    accuracy: float = 1.0
    order_bias: float = 0.0
    confidence: float = 0.9
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """The settings."""
        return {
            "judge": "planted",
            "accuracy": self.accuracy,
            "order_bias": self.order_bias,
            "confidence": self.confidence,
            "seed": self.seed,
        }

    def choices(self, questions: Sequence[Question]) -> list[Choice]:
        """Returns ln p(A) and ln p(B) of each question."""
        return [self._choice(question) for question in questions]

    def _choice(self, question: Question) -> Choice:
        prefers_a = 0.0
        if question.comparison not in _unrelated():
            prefers_a = 2 * is_better(standin_of(question.pair.row), *question.answers) - 1
        errs = draw_seed(self.seed, question.pair.id, "error") / 2**48 >= self.accuracy
        lead = (-prefers_a if errs else prefers_a) * _logit(self.confidence) + self.order_bias
        return -math.log1p(math.exp(-lead)), -math.log1p(math.exp(lead))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
