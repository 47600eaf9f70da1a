"""Two answers to a prompt, of which one is to be called the better one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model.sources.json_lines import json_lines
from ...model.text.tokenizer import Tokenizer
from ..constitution.plain_text import require_no_special_tokens
from ..draws import digest_of, draw_seed
from .transcripts import UnusablePair, parted, sides_of

Pairs = str | Path | Iterable[Mapping[str, Any]]
"""A JSONL file, or rows."""


@dataclass(frozen=True)
class AnswerPair:
    """A prompt with two different answers.

    Attributes:
        truth: The probability that the first one is better, where it is known.
        cluster: Pairs of the same cluster may depend on each other; by default the prompt.
        row: The row that it was made of.
    """

    id: str
    prompt: str
    first: str
    second: str
    truth: float | None
    cluster: str
    row: Mapping[str, Any]


def read_pairs(pairs: Pairs, tokenizer: Tokenizer | None = None) -> list[AnswerPair]:
    """Returns pairs of answers.

    A row has "prompt" (or "text"), and "first" and "second" with perhaps "truth", or "chosen" and
    "rejected", of which the chosen one is better; the id decides which of them comes first. "id"
    and "cluster" are optional. Rows of hh-rlhf and of the HHH evaluations, which hold whole
    conversations, are parted into prompt and answers (transcripts.py).

    Raises ValueError naming the row: what is missing, two equal answers, an id that is there
    twice, a text that spells a special token of `tokenizer`; and for no rows at all.
    """
    placed = (
        json_lines(pairs)
        if isinstance(pairs, str | Path)
        else ((f"pairs, row {i}", row) for i, row in enumerate(pairs, start=1))
    )
    found: dict[str, AnswerPair] = {}
    for where, row in placed:
        pair = _pair(_parted(row, where), where)
        if pair.id in found:
            raise ValueError(f"{where}: the id {pair.id!r} is there twice")
        for text in (pair.prompt, pair.first, pair.second):
            if tokenizer is not None:
                require_no_special_tokens(text, tokenizer, where)
        found[pair.id] = pair
    if not found:
        raise ValueError("pairs: there are none")
    return list(found.values())


def _parted(row: Any, where: str) -> Any:
    names = sides_of(row) if isinstance(row, Mapping) else None
    if names is None:
        return row
    try:
        made = parted(*(row[name] for name in names))
    except UnusablePair as error:
        raise ValueError(
            f"{where}: {error.reason}; `bitlens cai pairs` writes a file without such lines, and "
            "counts them"
        ) from error
    return {**{k: v for k, v in row.items() if k not in names}, **made}


def _pair(row: Any, where: str) -> AnswerPair:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected an object")
    names = ("chosen", "rejected") if "chosen" in row else ("first", "second")
    texts = [row.get("prompt", row.get("text")), *(row.get(name) for name in names)]
    for name, text in zip(("prompt", *names), texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {name} is no text")
    prompt, first, second = texts
    if first.strip() == second.strip():
        raise ValueError(f"{where}: {names[0]} and {names[1]} are the same")
    id_ = str(row.get("id", digest_of(texts)[:16]))
    truth = 1.0 if names[0] == "chosen" else row.get("truth")
    if names[0] == "chosen" and draw_seed(id_, "place") % 2:
        first, second, truth = second, first, 0.0
    if truth is not None and not (isinstance(truth, int | float) and 0 <= truth <= 1):
        raise ValueError(f"{where}: truth = {truth!r}, expected the probability of the first")
    cluster = str(row.get("cluster", digest_of(prompt)[:16]))
    return AnswerPair(id_, prompt, first, second, truth, cluster, row)
