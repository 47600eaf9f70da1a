"""A model that answers, criticises its own answers and revises them, after examples of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...model.text.prompts import Prompt, require_tokenizer
from ...model.transformer import HookedTransformer
from ..constitution import Constitution, Example
from ..sampled_texts import sampled_texts
from .drafts import Draft

SPEAKERS = ("Human", "Assistant")
Turns = list[str]


@dataclass(frozen=True)
class ModelReviser:
    """The model itself (Bai et al. 2022, section 3.1), few-shot.

    Requests for critiques and revisions are turns of the conversation; a model without a chat
    template reads them as text.

    Attributes:
        max_new_tokens: The longest answer, critique or revision.
        temperature: Of all three.
    """

    model: HookedTransformer
    constitution: Constitution
    max_new_tokens: int = 96
    temperature: float = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """The model's digest and policy, and the settings."""
        return {
            "reviser": "model",
            "model": self.model.fingerprint(),
            "policy": self.model.ops.policy.name,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }

    def answers(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns what the model answers to each prompt alone."""
        return self._sampled([[draft.prompt] for draft in drafts], drafts)

    def critiques(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns what the model says when it is asked to criticise its answer."""
        shown = [turn for e in self.constitution.examples for turn in critique_turns(e)]
        return self._sampled(
            [[*shown, d.prompt, d.response, _drawn(d).request] for d in drafts], drafts
        )

    def revisions(self, drafts: Sequence[Draft]) -> list[str]:
        """Returns what the model says when it is asked to write its answer again."""
        rows = []
        for draft in drafts:
            asked = _drawn(draft)
            if draft.critique is None:
                shown = [t for e in self.constitution.examples for t in short_turns(e)]
                rows.append([*shown, draft.prompt, draft.response, asked.revision])
            else:
                shown = [t for e in self.constitution.examples for t in revision_turns(e)]
                own = [draft.prompt, draft.response, asked.request, draft.critique, asked.revision]
                rows.append([*shown, *own])
        return self._sampled(rows, drafts)

    def _sampled(self, rows: Sequence[Turns], drafts: Sequence[Draft]) -> list[str]:
        chat = require_tokenizer(self.model.tokenizer).chat_template is not None
        prompts: list[Prompt] = [_messages(row) if chat else _text(row) for row in rows]
        return sampled_texts(
            self.model,
            prompts,
            [draft.seed for draft in drafts],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=() if chat else ("\n\n",),
        )


def critique_turns(example: Example) -> Turns:
    """Returns the conversation of an example up to its critique."""
    return [example.prompt, example.answer, example.critique_request, example.critique]


def revision_turns(example: Example) -> Turns:
    """Returns the whole conversation of an example."""
    return [*critique_turns(example), example.revision_request, example.revision]


def short_turns(example: Example) -> Turns:
    """Returns the conversation of an example without its critique."""
    return [example.prompt, example.answer, example.revision_request, example.revision]


def _drawn(draft: Draft) -> Any:
    if draft.pair is None:
        raise ValueError(f"prompt {draft.row['id']}: no principle was drawn")
    return draft.pair


def _messages(turns: Turns) -> Prompt:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def _text(turns: Turns) -> str:
    said = [f"{SPEAKERS[i % 2]}: {text}\n\n" for i, text in enumerate(turns)]
    return "".join(said) + f"{SPEAKERS[1]}:"
