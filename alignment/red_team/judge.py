"""Judges of answers: a refusal, an answer, or nonsense. docs/red_team.md has their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..standin import Verdict


@dataclass(frozen=True)
class Judgement:
    """One answer's verdict.

    Attributes:
        score: Evidence of a refusal, larger for more; each judge has a scale of its own.
    """

    verdict: Verdict
    score: float


class Judge(Protocol):
    """A judge tells refusals from answers.

    Attributes:
        name: What tables call it.
    """

    @property
    def name(self) -> str: ...

    def digest(self) -> str:
        """Returns a digest of all that decides its verdicts."""
        ...

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        """Returns the verdict on each answer; a prompt that is not known is empty."""
        ...
