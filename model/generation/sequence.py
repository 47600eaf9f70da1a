"""One sequence under way, and where its text goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from ..text.stream import TextStream
from .guide import Guide

Stream = Callable[..., object] | bool | None
"""True prints; a function is called with each piece, after the row where there are several."""

Ended = Literal["stop", "alarm", "error"]
"""What ends a row before its length does."""

Logprobs = tuple[float, list[int], list[float]]
"""Of the chosen token; ids and log-probabilities of the best ones."""


@dataclass
class Sequence:
    """One row under way.

    Attributes:
        draw: Which of the samples of its prompt it is.
        stream: Makes its text; None without a tokenizer.
        new: Tokens written so far.
        ended: What ended it, None while it goes on or where only its length ended it.
        n_read: New tokens that a pass has run on.
        logprobs: Of each new token, where asked for.
        guide: Rules of what may come next; None permits all.
    """

    prompt: list[int]
    draw: int
    stream: TextStream | None
    new: list[int] = field(default_factory=list)
    ended: Ended | None = None
    n_read: int = 0
    logprobs: list[Logprobs] = field(default_factory=list)
    guide: Guide | None = None

    def end(self, reason: str) -> None:
        """Ends it. Raises ValueError for a reason that is none."""
        if reason not in get_args(Ended):
            raise ValueError(f"a row ends by {', '.join(get_args(Ended))}, not by {reason!r}")
        self.ended = cast(Ended, reason)


def emitter(stream: Stream, n_sequences: int) -> Callable[[int, str], object]:
    """Returns what is called with a row and a piece of its text.

    Raises ValueError for True and several sequences: their pieces cannot share one line.
    """
    if stream is None or stream is False:
        return lambda row, piece: None
    if stream is True:
        if n_sequences > 1:
            raise ValueError(
                f"stream = True prints one sequence, this request has {n_sequences}: give a "
                "function of row and piece"
            )
        return lambda row, piece: _print_piece(piece) if piece else None
    write = stream
    if n_sequences > 1:
        return lambda row, piece: write(row, piece) if piece else None
    return lambda row, piece: write(piece) if piece else None


def _print_piece(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
