"""The training data that revisions become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..row_file import Row

Conversation = list[dict[str, str]]


def sft_rows(
    revisions: Sequence[Row], helpful: Iterable[Mapping[str, Any]] = (), *, chat: bool
) -> list[Row]:
    """Returns rows for method "sft": every revision of every prompt, and helpful answers.

    All revisions are targets, not the last alone (Bai et al. 2022, section 3.2). A revision that
    is empty, and one that its prompt has already, is left out.

    Args:
        revisions: Of `revise`.
        helpful: Rows with "text" or "prompt", and "answer", which are mixed with them.
        chat: Whether prompts and answers become conversations.

    Raises ValueError where nothing is left to train on.
    """
    found: dict[tuple[str, str], Row] = {}
    for row in revisions:
        if row["round"] and row["response"].strip():
            found[row["prompt"], row["response"]] = _sft(row["prompt"], row["response"], chat)
    if not found:
        raise ValueError("revisions: none has a text that could be trained on")
    for one in helpful:
        prompt, answer = str(one.get("text", one.get("prompt"))), str(one["answer"])
        found[prompt, answer] = _sft(prompt, answer, chat)
    return list(found.values())


def as_prompt(text: str, chat: bool) -> str | Conversation:
    """Returns a prompt as training rows hold it."""
    return [{"role": "user", "content": text}] if chat else text


def as_answer(text: str, chat: bool) -> str | Conversation:
    """Returns an answer as training rows hold it."""
    return [{"role": "assistant", "content": text}] if chat else text


def _sft(prompt: str, answer: str, chat: bool) -> Row:
    return {"prompt": as_prompt(prompt, chat), "completion": as_answer(answer, chat)}
