"""Problems by the name of their task, as a command line has it."""

from __future__ import annotations

from pathlib import Path

from ..text.prompts import require_tokenizer
from ..text.tokenizer import Tokenizer
from .formats import formats
from .gym import gym_problems
from .measure import Problem
from .needles import LENGTHS, needles
from .tasks import read_number, read_problems, sums
from .think import Reader, whole_text

NAMES = "sums, sums2 (two digits), needles[:LENGTH,...], formats, gym:NAME, or a JSONL file"


def problems_named(
    tasks: str,
    n: int,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    chat: bool | None = None,
) -> tuple[list[Problem], Reader]:
    """Returns n problems and what reads their answers: the first number, or the whole text.

    Args:
        tasks: One of `NAMES`. A file may have fewer problems than n.
        tokenizer: Of the model that is asked; measures needles' texts.
        chat: As conversations; None where the tokenizer has a template for them.

    Raises ValueError for a task that is none, and as its source does; OSError for a file.
    """
    if chat is None:
        chat = tokenizer is not None and tokenizer.chat_template is not None
    kind, _, rest = tasks.partition(":")
    if tasks in ("sums", "sums2"):
        return sums(n, digits=2 if tasks == "sums2" else 1, seed=seed, chat=chat), read_number
    if kind == "gym":
        return gym_problems(rest, n, seed=seed, chat=chat), whole_text
    if kind == "needles":
        lengths = _lengths(tasks, rest)
        known = require_tokenizer(tokenizer)
        return needles(known, n, lengths=lengths, seed=seed, chat=chat), read_number
    if tasks == "formats":
        return formats(n, seed=seed, chat=chat), whole_text
    if not Path(tasks).is_file():
        raise ValueError(f"tasks {tasks!r}: expected {NAMES}")
    return read_problems(tasks)[:n], whole_text


def _lengths(tasks: str, text: str) -> tuple[int, ...]:
    if not text:
        return LENGTHS
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"tasks {tasks!r}: expected needles:256,1024")
    return tuple(map(int, parts))
