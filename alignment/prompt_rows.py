"""Prompts as rows, from files or from memory, checked before any model sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..model.sources.json_lines import json_lines
from ..model.text.tokenizer import Tokenizer
from .constitution.plain_text import require_no_special_tokens
from .draws import digest_of

PromptRow = dict[str, Any]
Prompts = str | Path | Iterable[Mapping[str, Any] | Any]
"""A JSONL file, or rows: mappings, or what has a `to_dict`, such as the stand-in's."""


def read_prompts(prompts: Prompts, tokenizer: Tokenizer | None = None) -> list[PromptRow]:
    """Returns rows with "id" and "text", and whatever else they hold.

    A row is {"text": ...} or {"prompt": ...}; one without an "id" has the digest of its text.

    Raises ValueError naming the row: no text, an id that is there twice, a text that spells a
    special token of `tokenizer`, and a row that is marked as sensitive, since what is made of
    these rows is written to files.
    """
    placed = (
        json_lines(prompts)
        if isinstance(prompts, str | Path)
        else ((f"prompts, row {i}", row) for i, row in enumerate(prompts, start=1))
    )
    found: dict[str, PromptRow] = {}
    for where, row in placed:
        made = _row(row, where)
        if made["id"] in found:
            raise ValueError(f"{where}: the id {made['id']!r} is there twice")
        if tokenizer is not None:
            require_no_special_tokens(made["text"], tokenizer, where)
        found[made["id"]] = made
    if not found:
        raise ValueError("prompts: there are none")
    return list(found.values())


def _row(row: Any, where: str) -> PromptRow:
    made = dict(row.to_dict() if hasattr(row, "to_dict") else row)
    if made.get("sensitive") or made.get("kind") == "sensitive":
        raise ValueError(
            f"{where}: is sensitive, and revisions, labels and training data keep their texts; "
            "`bitlens redteam` measures on such prompts without keeping them"
        )
    text = made.pop("prompt", None) if "text" not in made else made["text"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: no text; expected a row with text or prompt")
    made["text"] = text
    made.setdefault("id", digest_of(text)[:16])
    made["id"] = str(made["id"])
    return made
