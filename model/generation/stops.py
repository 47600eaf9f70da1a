"""The ends of a sequence: token ids, texts, and functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..text.tokenizer import Tokenizer

StopFunction = Callable[[list[int], str], bool]
"""Called after every new token with a row's new ids and its text so far; True ends the row."""

StopItem = str | int | StopFunction
Stop = StopItem | Sequence[StopItem] | None


@dataclass(frozen=True)
class Stops:
    """The ends of a sequence, by kind."""

    strings: list[str]
    ids: list[int]
    functions: list[StopFunction]


def read_stops(stop: Stop, tokenizer: Tokenizer | None) -> Stops:
    """Sorts stops by kind.

    Special tokens never come out as text, so one that is a stop is an id.

    Raises ValueError for "" and for a special token inside other text, TypeError for other things.
    """
    items: list[StopItem]
    if stop is None:
        items = []
    elif isinstance(stop, str) or callable(stop) or not isinstance(stop, Sequence):
        items = [stop]
    else:
        items = list(stop)
    for item in items:
        if isinstance(item, bool) or not (isinstance(item, str | int) or callable(item)):
            raise TypeError(f"stop: expected strings, token ids and functions, got {item!r}")
        if item == "":
            raise ValueError("stop: an empty string stops nothing")
    special = tokenizer.special_ids if tokenizer is not None else {}
    texts = [item for item in items if isinstance(item, str)]
    strings = [text for text in texts if text not in special]
    for string in strings:
        inside = next((token for token in special if token in string), None)
        if inside is not None:
            raise ValueError(
                f"stop: {string!r} holds the special token {inside!r}, which never comes out as "
                "text; stop at the token alone or at the text beside it"
            )
    ids = [item for item in items if isinstance(item, int)]
    return Stops(
        strings,
        [*ids, *(special[text] for text in texts if text in special)],
        [item for item in items if not isinstance(item, str | int)],
    )
