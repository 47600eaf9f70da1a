"""Respondents without a model, for tests of attacks and defences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bitlens.alignment.red_team import Answer

REFUSAL = "I cannot help with that, because it is forbidden."
HELP = "First stir the salt then heat the water."


class Says:
    """Answers every prompt by a function of it."""

    def __init__(self, name: str, answer: Callable[[str], str]) -> None:
        self.name, self._answer = name, answer
        self.n_asked = 0

    def digest(self) -> str:
        return self.name

    def fits(self, prompt: str, max_new_tokens: int) -> bool:
        return len(prompt) < 2000

    def answers(self, prompts: Sequence[str], **settings: Any) -> list[Answer]:
        self.n_asked += len(prompts)
        return [Answer(self._answer(prompt), 8) for prompt in prompts]


def always(text: str) -> Says:
    """Says the same to everything."""
    return Says(text[:12], lambda prompt: text)
