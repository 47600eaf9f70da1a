"""An answer on its way through a round of revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..constitution import Critique


@dataclass(frozen=True)
class Draft:
    """A prompt with what is known of its answer so far.

    Attributes:
        row: The prompt's row: "id", "text", and whatever else its file has.
        seed: Of the text that is to be made of this draft.
        response: The last answer; empty before the first.
        pair: The requests that this round drew; None for a first answer.
        critique: Of `response`; None before it, and in a run without critiques.
    """

    row: dict[str, Any]
    seed: int
    response: str = ""
    pair: Critique | None = None
    critique: str | None = None

    @property
    def prompt(self) -> str:
        """The prompt's text."""
        text: str = self.row["text"]
        return text


class Reviser(Protocol):
    """Answers, criticises and revises. Each text is a function of its draft alone.

    Attributes:
        identity: All that decides its texts beside the draft; part of a run's digest.
    """

    @property
    def identity(self) -> dict[str, Any]: ...

    def answers(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns a first answer to each prompt."""
        ...

    def critiques(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns a critique of each response."""
        ...

    def revisions(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns each response once more, better."""
        ...
