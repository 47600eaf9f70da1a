"""Needles in haystacks: one fact in a long text, by the text's length and the fact's depth."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..text.tokenizer import Tokenizer
from .measure import Problem

LENGTHS = (256, 512, 1024)
DEPTHS = (0, 25, 50, 75, 100)
"""Percent of the text that stands before the fact."""

_TOWNS = ("Arles", "Bergen", "Cork", "Delft", "Evora", "Faro", "Ghent", "Halle", "Ivrea", "Jena")
_WHO = ("baker", "teacher", "sailor", "painter", "farmer", "doctor", "singer", "clerk")
_DID = ("bought", "sold", "mended", "lost", "found", "washed", "carried", "drew")
_WHAT = ("a red kettle", "two chairs", "an old map", "a blue coat", "some bread", "a small boat")


def needles(
    tokenizer: Tokenizer,
    n: int,
    *,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[int] = DEPTHS,
    seed: int = 0,
    chat: bool = True,
) -> list[Problem]:
    """Returns n problems, the lengths and depths in turn; each cell is a task of its own.

    Args:
        lengths: Most tokens of the text with its question; it falls short by a sentence at most.
        depths: Percent of the text before the fact.
        chat: As a conversation; otherwise as plain text, which the model continues.

    Raises ValueError for no or wrong lengths and depths, and for a length that the fact and its
    question alone exceed.
    """
    if not lengths or not depths or not all(0 <= depth <= 100 for depth in depths):
        raise ValueError(f"lengths {list(lengths)}, depths {list(depths)}: expected some, 0 to 100")
    cells = [(length, depth) for length in lengths for depth in depths]
    draws = random.Random(seed)
    return [_problem(tokenizer, *cells[i % len(cells)], draws, chat) for i in range(n)]


def _problem(
    tokenizer: Tokenizer, length: int, depth: int, draws: random.Random, chat: bool
) -> Problem:
    town, number = draws.choice(_TOWNS), str(draws.randrange(10_000, 100_000))
    needle = f"The secret number of {town} is {number}."
    end = "Answer with the number alone." if chat else "The number is"
    question = f"\nWhat is the secret number of {town}? {end}"
    left = length - len(tokenizer.encode(needle + question))
    if left < 0:
        raise ValueError(
            f"length = {length}: the fact and its question take {length - left} tokens"
        )
    hay: list[str] = []
    while left >= 0:
        hay.append(_sentence(draws))
        left -= len(tokenizer.encode(f" {hay[-1]}"))
    del hay[-1]
    at = round(len(hay) * depth / 100)
    text = " ".join([*hay[:at], needle, *hay[at:]]) + question
    prompt = [{"role": "user", "content": text}] if chat else text
    return Problem(prompt, number, task=f"needle, {length} tokens, depth {depth}%")


def _sentence(draws: random.Random) -> str:
    who, did, what = draws.choice(_WHO), draws.choice(_DID), draws.choice(_WHAT)
    return f"The {who} of {draws.choice(_TOWNS)} {did} {what}."
