"""A model's answers, kept in memory: filters of the same model need not ask it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..red_team.respondents import Answer, ModelRespondent


class RememberedModel(ModelRespondent):
    """A model that writes each answer once. Texts are kept for as long as the object is."""

    def __init__(self, inner: ModelRespondent) -> None:
        super().__init__(inner.model, inner.name)
        self._kept: dict[tuple[Any, ...], Answer] = {}

    def answers(self, prompts: Sequence[str], **settings: Any) -> list[Answer]:
        """Returns an answer to each prompt, those that are known from memory."""
        key = tuple(sorted(settings.items()))
        new = [p for p in dict.fromkeys(prompts) if (p, key) not in self._kept]
        if new:
            for prompt, answer in zip(new, super().answers(new, **settings), strict=True):
                self._kept[prompt, key] = answer
        return [self._kept[prompt, key] for prompt in prompts]
