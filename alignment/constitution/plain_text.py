"""Text that goes into a conversation's template, and must not be able to open a turn of its own."""

from __future__ import annotations

import re

from ...model.text.tokenizer import Tokenizer

MOST_CHARACTERS = 2000
"""The longest principle; far above what a sentence needs."""

_TURN = re.compile(
    r"<\|[^<>|]{1,40}\|>"  # ChatML and Llama 3
    r"|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|\{\{|\{%|\{#"  # Jinja
    r"|(?im:^\s*(?:human|user|assistant|system)\s*:)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def checked_text(text: object, where: str) -> str:
    """Returns the text of a principle without space around it.

    Raises ValueError naming the place: no text, an empty one, one beyond `MOST_CHARACTERS`, one
    with control characters, or with what opens a turn in a chat template.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: expected a text, not {text!r}"[:300])
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{where}: {len(text)} characters, at most {MOST_CHARACTERS} are read")
    if found := _CONTROL.search(text):
        raise ValueError(f"{where}: has the control character U+{ord(found[0]):04X}; remove it")
    if found := _TURN.search(text):
        raise ValueError(
            f"{where}: {found[0].strip()!r} opens a turn or a template's tag, which would let the "
            "text speak as somebody else; reword it"
        )
    return text.strip()


def require_no_special_tokens(text: str, tokenizer: Tokenizer, where: str) -> None:
    """Raises ValueError for a text that spells one of the tokenizer's special tokens, which would
    become that token."""
    for token in tokenizer.special_ids:
        if token in text:
            raise ValueError(
                f"{where}: spells the special token {token!r}, which could open a turn; remove it"
            )
