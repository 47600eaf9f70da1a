"""Pairs of conversations that part at the last answer: hh-rlhf's layout, and the HHH evaluations'.

hh-rlhf has "chosen" and "rejected"; 438HHHEvaluations.jsonl of ConstitutionalHarmlessnessPaper has
"text_correct" and "text_incorrect". Each is a whole conversation, turns behind "\\n\\nHuman:" and
"\\n\\nAssistant:".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ...model.sources.json_lines import json_lines

SIDES = (("chosen", "rejected"), ("text_correct", "text_incorrect"))
HUMAN, ASSISTANT = "Human", "Assistant"

Turn = tuple[str, str]
_TURN = re.compile(rf"\n\n({HUMAN}|{ASSISTANT}):")


class UnusablePair(ValueError):
    """Two conversations that are no prompt with two answers.

    Attributes:
        reason: Why, without the texts.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class UsablePairs:
    """Pairs of a file.

    Attributes:
        rows: With "prompt", "chosen" and "rejected", and the "line" that each stood on.
        left_out: The number of lines that are no such pair, by reason.
    """

    rows: list[dict[str, Any]]
    left_out: dict[str, int]


def sides_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the names of a row's two conversations; None for a row of another layout."""
    for names in SIDES:
        texts = [row.get(name) for name in names]
        if "prompt" in row and names == SIDES[0]:
            continue
        if all(isinstance(text, str) and _TURN.match(text) for text in texts):
            return names
    return None


def parted(better: str, worse: str) -> dict[str, str]:
    """Returns the prompt that two conversations share, and the answer of each.

    A prompt of one turn is that turn's text, a longer one the conversation. Raises UnusablePair for
    conversations that share no turn, go on behind the answer, end without one, or have equal ones.
    """
    turns = [_turns(better), _turns(worse)]
    same = list(takewhile(lambda pair: pair[0] == pair[1], zip(*turns, strict=False)))
    shared = [one for one, _ in same]
    rests = [each[len(shared) :] for each in turns]
    if not shared or shared[-1][0] != HUMAN:
        raise UnusablePair("no question that both share before their answers")
    if not all(len(rest) == 1 and rest[0][0] == ASSISTANT and rest[0][1] for rest in rests):
        raise UnusablePair("not one answer each behind what both share")
    prompt = shared[0][1] if len(shared) == 1 else "\n\n".join(f"{w}: {t}" for w, t in shared)
    return {"prompt": prompt, "chosen": rests[0][0][1], "rejected": rests[1][0][1]}


def usable_pairs(path: str | Path) -> UsablePairs:
    """Returns the pairs of a file in one of the two layouts, and how many lines are none.

    Raises ValueError for a line of another layout, and a file without any pair.
    """
    rows, left_out = [], Counter[str]()
    for where, row in json_lines(path):
        names = sides_of(row) if isinstance(row, Mapping) else None
        if names is None:
            raise ValueError(
                f"{where}: expected chosen and rejected, or text_correct and text_incorrect, each "
                "a conversation that begins with a turn"
            )
        try:
            made = parted(*(row[name] for name in names))
        except UnusablePair as error:
            left_out[error.reason] += 1
            continue
        rows.append({**made, "line": int(where.rpartition(" ")[2])})
    if not rows:
        raise ValueError(f"{path}: holds no pair; {dict(left_out)}")
    return UsablePairs(rows, dict(left_out))


def _turns(text: str) -> list[Turn]:
    pieces = _TURN.split(text)
    return [(who, said.strip()) for who, said in zip(pieces[1::2], pieces[2::2], strict=True)]
