"""Problems to think about: generated sums, or a file of one's own."""

from __future__ import annotations

import random
import re
from pathlib import Path

from ..sources.json_lines import json_lines
from .measure import Problem

NUMBER = re.compile(r"-?\d+")

MOST_BYTES = 1 << 30


def read_number(text: str) -> str | None:
    """Returns the first whole number of a text, as "12" or "-3"; None where there is none."""
    found = NUMBER.search(text.replace(",", ""))
    return None if found is None else str(int(found.group()))


def sums(n: int, *, digits: int = 1, seed: int = 0, chat: bool = True) -> list[Problem]:
    """Returns n different sums of two numbers.

    Args:
        digits: Of each number.
        chat: As a conversation; otherwise as plain text, which the model continues.

    Raises ValueError for more sums than there are.
    """
    low, high = (0, 9) if digits == 1 else (10 ** (digits - 1), 10**digits - 1)
    pairs = (high - low + 1) ** 2
    if digits < 1 or not 1 <= n <= pairs:
        raise ValueError(f"{n} sums of {digits} digits: expected 1 to {pairs}")
    drawn = random.Random(seed).sample(range(pairs), n)
    problems = []
    for index in drawn:
        a, b = low + index // (high - low + 1), low + index % (high - low + 1)
        text = f"What is {a} + {b}? Answer with the number alone."
        prompt = [{"role": "user", "content": text}] if chat else f"{a} + {b} ="
        problems.append(Problem(prompt, str(a + b), f"{min(a, b)}+{max(a, b)}"))
    return problems


def read_problems(path: str | Path) -> list[Problem]:
    """Returns the problems of a JSONL file: `prompt` (text or a conversation), `answer`, and if
    wanted `cluster`.

    Raises ValueError naming the line of anything else; OSError.
    """
    path = Path(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: longer than {MOST_BYTES >> 30} GiB")
    problems = []
    for where, row in json_lines(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object")
        prompt, answer = row.get("prompt"), row.get("answer")
        if not (isinstance(prompt, str) or _is_conversation(prompt)) or not prompt:
            raise ValueError(f"{where}: prompt: expected a text or a list of role and content")
        if isinstance(answer, bool) or not isinstance(answer, str | int) or answer == "":
            raise ValueError(f"{where}: answer: without one nothing can be judged")
        cluster = row.get("cluster")
        problems.append(Problem(prompt, str(answer), None if cluster is None else str(cluster)))
    return problems


def _is_conversation(prompt: object) -> bool:
    return isinstance(prompt, list) and all(
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
        for turn in prompt
    )
