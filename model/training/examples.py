"""Rows of a JSONL file, in TRL's formats, as tokens.

{"prompt": "2+2=", "completion": "4"}                     sft; both may be conversations
{"messages": [{"role": "user", "content": ...}, ...]}     sft: what the assistant says counts
{"text": "..."}                                           sft and lm: every token counts
{"prompt": ..., "chosen": ..., "rejected": ..., "label": 0.9}   dpo, rm; a label is optional
{"prompt": ..., anything else}                            grpo and rloo; the rest is the reward's
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sources.json_lines import json_lines
from ..text.tokenizer import Tokenizer

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A text.

    Attributes:
        ids: Its tokens.
        n_prompt: The first that do not count.
        counted: Which tokens count, where that is not all behind the prompt.
    """

    ids: tuple[int, ...]
    n_prompt: int
    counted: tuple[bool, ...] | None = None

    def scored(self) -> list[bool]:
        """Returns which tokens count; never the first, which nothing comes before."""
        counted = self.counted or [i >= self.n_prompt for i in range(len(self.ids))]
        return [kept and i > 0 for i, kept in enumerate(counted)]


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt.

    Attributes:
        label: The probability that the chosen one is better.
        margin: What its reward is to be ahead by.
    """

    chosen: Example
    rejected: Example
    label: float
    margin: float = 0.0


@dataclass(frozen=True)
class Question:
    """A prompt that the model is to answer, and the row that it came from."""

    ids: tuple[int, ...]
    row: Row


class ExampleReader:
    """Makes examples of rows; errors are ValueErrors that name the row."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length

    def text(self, row: Row) -> Example:
        """A row of "sft", or of "lm" without its cutting."""
        if "messages" in row:
            return self._conversation(row["messages"])
        if "text" in row:
            ids = self._start(_text(row, "text"))
            return self._checked(Example((*ids, *self._end()), 0))
        return self._answer(row.get("prompt"), row.get("completion"), "completion")

    def pieces(self, row: Row) -> list[Example]:
        """A row of "lm": its text, cut where it is longer than allowed. No piece crosses texts."""
        ids = (*self._start(_text(row, "text")), *self._end())
        cuts = range(0, len(ids), self._max_length)
        found = [Example(ids[at : at + self._max_length], 0) for at in cuts]
        return [piece for piece in found if len(piece.ids) > 1]

    def pair(self, row: Row) -> Pair:
        """A row of "dpo" or "rm"."""
        prompt, label = row.get("prompt"), row.get("label", 1.0)
        if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
            raise ValueError(f"label = {label!r}: expected the probability that chosen is better")
        chosen, rejected = (self._answer(prompt, row.get(n), n) for n in ("chosen", "rejected"))
        if chosen == rejected:
            raise ValueError("chosen and rejected are the same")
        return Pair(chosen, rejected, float(label), _margin(row))

    def question(self, row: Row) -> Question:
        """A row of "grpo" or "rloo"."""
        ids = self._prompt(row.get("prompt"))
        if len(ids) >= self._max_length:
            raise ValueError(f"prompt: {len(ids)} tokens, max_length is {self._max_length}")
        return Question(tuple(ids), row)

    def _answer(self, prompt: Any, answer: Any, name: str) -> Example:
        ids = self._prompt(prompt)
        if isinstance(answer, list):
            if not isinstance(prompt, list):
                raise ValueError(f"{name}: a conversation, and the prompt is none")
            whole = self._tokenizer.encode_chat([*prompt, *answer], add_generation_prompt=False)
            if list(whole[: len(ids)]) != list(ids):
                raise ValueError(f"{name}: the chat template does not keep the prompt's tokens")
            return self._checked(Example(tuple(whole), len(ids)))
        if not isinstance(answer, str) or not answer:
            raise ValueError(f"{name}: expected a text or a conversation, not {answer!r}")
        tokens = (*ids, *self._tokenizer.encode(answer), *self._end())
        return self._checked(Example(tokens, len(ids)))

    def _prompt(self, prompt: Any) -> Sequence[int]:
        if isinstance(prompt, list) and prompt:
            return self._tokenizer.encode_chat(prompt)
        if isinstance(prompt, str) and (ids := self._start(prompt)):
            return ids
        raise ValueError(f"prompt: expected a text or a conversation, not {prompt!r}")

    def _conversation(self, messages: Any) -> Example:
        if not isinstance(messages, list) or not messages:
            raise ValueError("messages: expected a conversation")
        encode = self._tokenizer.encode_chat
        ids = encode(messages, add_generation_prompt=False)
        counted = [False] * len(ids)
        for i, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            begin = len(encode(messages[:i])) if i else 0
            turn = encode(messages[: i + 1], add_generation_prompt=False)
            if list(ids[: len(turn)]) != list(turn):
                raise ValueError(f"messages: the template changes turn {i} once another follows")
            counted[begin : len(turn)] = [True] * (len(turn) - begin)
        return self._checked(Example(tuple(ids), 0, tuple(counted)))

    def _start(self, text: str) -> Sequence[int]:
        return self._tokenizer.encode(text, add_bos=self._tokenizer.prepends_bos)

    def _end(self) -> Sequence[int]:
        return self._tokenizer.eos_ids[:1]

    def _checked(self, example: Example) -> Example:
        if len(example.ids) > self._max_length:
            raise ValueError(f"{len(example.ids)} tokens, max_length is {self._max_length}")
        if not any(example.scored()):
            raise ValueError("nothing in it counts: no answer, or a single token")
        return example


def read_rows(data: str | Path | Iterable[Row]) -> Sequence[Row]:
    """Returns the rows of a JSONL file, or those given.

    Raises ValueError naming the line that is no JSON object, and for a file without any.
    """
    if not isinstance(data, str | Path):
        rows = [dict(row) for row in data]
    else:
        rows = []
        for where, row in json_lines(data):
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a JSON object")
            rows.append(row)
    if not rows:
        raise ValueError("data: no rows")
    return rows


def _margin(row: Row) -> float:
    margin = row.get("margin", 0.0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not abs(margin) < 1e300:
        raise ValueError(f"margin = {margin!r}: expected a number")
    return float(margin)


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: expected a text, not {value!r}; the row has {sorted(row)}")
    return value
