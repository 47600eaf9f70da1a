"""Problems whose answer must have a form: its verifier reads the form, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from .measure import Problem

WORDS = ("apple", "river", "stone", "cloud", "tiger", "paper", "green", "music", "bread", "chair")

Form = tuple[str, str, Callable[[list[str]], str]]
"""Name, request and answer."""

FORMS: tuple[Form, ...] = (
    ("json list", "Write these words as a JSON list of strings: {}.", json.dumps),
    ("upper case", "Write these words in upper case, with commas between: {}.",
     lambda words: ", ".join(word.upper() for word in words)),
    ("backwards", "Write these words in the opposite order, with commas between: {}.",
     lambda words: ", ".join(reversed(words))),
    ("sorted", "Write these words in alphabetical order, one a line: {}.",
     lambda words: "\n".join(sorted(words))),
    ("json object", "Write a JSON object that gives for each of these words its length: {}.",
     lambda words: json.dumps({word: len(word) for word in words})),
)  # fmt: skip


def formats(n: int, *, seed: int = 0, chat: bool = True) -> list[Problem]:
    """Returns n problems, the forms in turn, each a task of its own.

    Space around and between words is free, and JSON is read as JSON; all else must be as asked.

    Args:
        chat: As a conversation; otherwise as plain text, which the model continues.
    """
    draws = random.Random(seed)
    return [_problem(FORMS[i % len(FORMS)], draws.sample(WORDS, 4), chat) for i in range(n)]


def _problem(form: Form, words: Sequence[str], chat: bool) -> Problem:
    name, request, answer = form
    text = f"{request.format(', '.join(words))} Answer with nothing else."
    truth = answer(list(words))
    return Problem(
        [{"role": "user", "content": text}] if chat else f"{text}\n",
        truth,
        task=f"format, {name}",
        verify=lambda given: _same(given, truth, is_json=name.startswith("json")),
    )


def _same(given: str, truth: str, *, is_json: bool) -> bool:
    if not is_json:
        parted = "\n" if "\n" in truth else ","
        return [part.strip() for part in given.strip().split(parted)] == [
            part.strip() for part in truth.split(parted)
        ]
    try:
        found = json.loads(given)
    except ValueError:
        return False
    return type(found) is type(json.loads(truth)) and bool(found == json.loads(truth))
