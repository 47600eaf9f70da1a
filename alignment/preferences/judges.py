"""Judges that choose between an answer (A) and an answer (B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ...model.text.prompts import left_pad, padding_id, require_tokenizer
from ...model.transformer import HookedTransformer
from ..constitution import Comparison
from ..sampled_texts import sampled_texts
from .pairs import AnswerPair

FORMS = ("plain", "chat")
OPENING = "The better answer is ("
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Question:
    """A question: which of two answers is better, (A) or (B)?

    Attributes:
        pair: The pair whose answers they are.
        is_swapped: Whether (A) is the second answer of the pair.
        seed: Of what the judge samples.
    """

    pair: AnswerPair
    comparison: Comparison
    is_swapped: bool
    seed: int

    @property
    def answers(self) -> tuple[str, str]:
        """The answers (A) and (B)."""
        first, second = self.pair.first, self.pair.second
        return (second, first) if self.is_swapped else (first, second)

    def text(self) -> str:
        """Returns the question in words."""
        a, b = self.answers
        return (
            f"Somebody asks: {self.pair.prompt}\n\n(A) {a}\n\n(B) {b}\n\n"
            f"{self.comparison.instruction} Answer with (A) or (B)."
        )


Choice = tuple[float, float]
"""ln p of "A" and of "B"."""


class Judge(Protocol):
    """Answers questions. Each choice is a function of its question alone.

    Attributes:
        identity: All that decides its choices beside the question.
    """

    @property
    def identity(self) -> dict[str, Any]: ...

    def choices(self, questions: Sequence[Question]) -> list[Choice]:
        """Returns ln p(A) and ln p(B) of each question."""
        ...


@dataclass(frozen=True)
class ModelJudge:
    """The probabilities that a model gives to the letters, whatever else it would rather say.

    Attributes:
        form: "chat" asks in the chat template, "plain" in running text.
        reasoning: Whether it first writes down what it thinks, which the choice then follows.
        max_reasoning: Tokens of that.
    """

    model: HookedTransformer
    form: str = "plain"
    reasoning: bool = False
    max_reasoning: int = 64

    def __post_init__(self) -> None:
        """Raises ValueError for a form that is none, or that the model has no template for."""
        if self.form not in FORMS:
            raise ValueError(f"form = {self.form!r}: expected one of {', '.join(FORMS)}")
        if self.form == "chat" and require_tokenizer(self.model.tokenizer).chat_template is None:
            raise ValueError("form = 'chat': the model has no chat template; take 'plain'")

    @property
    def identity(self) -> dict[str, Any]:
        """The model's digest and policy, and the settings."""
        return {
            "judge": "model",
            "model": self.model.fingerprint(),
            "policy": self.model.ops.policy.name,
            "form": self.form,
            "reasoning": self.reasoning,
            "max_reasoning": self.max_reasoning,
        }

    def with_form(self, form: str) -> ModelJudge:
        """Returns the same judge, asked in another form."""
        return replace(self, form=form)

    def choices(self, questions: Sequence[Question]) -> list[Choice]:
        """Returns ln p(A) and ln p(B) behind "The better answer is (".

        Raises ValueError for a tokenizer that has no token for a letter, or a question that is
        longer than the context.
        """
        thoughts = self._thoughts(questions) if self.reasoning else [""] * len(questions)
        rows = [self._ids(q, thought) for q, thought in zip(questions, thoughts, strict=True)]
        letters = [self._letter(letter) for letter in "AB"]
        longest = max(map(len, rows), default=0) + 1
        if longest > self.model.config.n_ctx:
            raise ValueError(
                f"question: {longest} tokens, the context has {self.model.config.n_ctx}; "
                "take shorter answers"
            )
        found: list[Choice] = []
        for part in _batches(rows):
            a, b = (self._last_logprobs([[*row, letter] for row in part]) for letter in letters)
            found += list(zip(a, b, strict=True))
        return found

    def _thoughts(self, questions: Sequence[Question]) -> list[str]:
        asked = [f"{q.text()} First say briefly what speaks for each." for q in questions]
        prompts: list[Any] = [
            [{"role": "user", "content": text}] if self.form == "chat" else f"{text}\n\nThoughts:"
            for text in asked
        ]
        return sampled_texts(
            self.model,
            prompts,
            [q.seed for q in questions],
            max_new_tokens=self.max_reasoning,
            temperature=1.0,
            stop=() if self.form == "chat" else ("\n\n",),
        )

    def _ids(self, question: Question, thought: str) -> list[int]:
        tokenizer = require_tokenizer(self.model.tokenizer)
        said = f"{thought}\n\n{OPENING}" if thought else OPENING
        if self.form == "plain":
            return tokenizer.encode(f"{question.text()}\n\n{said}", tokenizer.prepends_bos)
        asked = tokenizer.encode_chat([{"role": "user", "content": question.text()}])
        return [*asked, *tokenizer.encode(said)]

    def _letter(self, letter: str) -> int:
        ids = require_tokenizer(self.model.tokenizer).encode(letter)
        if len(ids) != 1:
            raise ValueError(f"judge: {letter!r} is {len(ids)} tokens of this model, expected one")
        return ids[0]

    @torch.no_grad()
    def _last_logprobs(self, rows: Sequence[list[int]]) -> list[float]:
        tokens, mask = left_pad(rows, padding_id(self.model.tokenizer))
        scored = torch.zeros_like(tokens, dtype=torch.bool)
        scored[:, -1] = True
        found: list[float] = self.model.logprobs(tokens, mask, scored=scored)[:, -1].tolist()
        return found


def share_of_a(choice: Choice) -> float:
    """Returns p(A) / (p(A) + p(B)).

    Raises ValueError where neither has any probability.
    """
    a, b = choice
    best = max(a, b)
    if not math.isfinite(best):
        raise ValueError("judge: gives no probability to A or B, so there is no label")
    return math.exp(a - best) / (math.exp(a - best) + math.exp(b - best))


def _batches(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Rows in their order, as many at a time as memory likes."""
    part: list[list[int]] = []
    for row in rows:
        if part and (len(part) + 1) * max(len(row), *map(len, part)) > BATCH_TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
