"""The client's side of a request: pieces of text as they come, and the answers at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..text.stream import TextStream
from ..text.tokenizer import Tokenizer
from .request import Completion


@dataclass(frozen=True)
class Piece:
    """The text that one token brought: perhaps none yet, perhaps that of several.

    Attributes:
        sample: Which of the request's n samples it belongs to.
        id: The token; None for text that was held back until the end.
    """

    sample: int
    text: str
    id: int | None


class Stepping(Protocol):
    """The part of an engine that a handle needs."""

    def step(self) -> bool: ...

    def cancel(self, handle: Handle) -> None: ...


class Handle:
    """One request under way. Whoever waits for it drives the engine, with all it has to do.

    Iterating gives pieces; leaving the loop early, by `break` or an exception, cancels the request.

    Attributes:
        number: The request's place in the order of arrival.
    """

    def __init__(
        self,
        engine: Stepping,
        number: int,
        n: int,
        tokenizer: Tokenizer | None,
        ends: list[int],
        listener: Callable[[], None] | None = None,
    ) -> None:
        """`ends`: tokens that end a text and are none of it. `listener`: called by whoever drives
        the engine when there are new pieces, or none will follow."""
        self.number = number
        self._engine = engine
        self._ends = frozenset(ends)
        self._listener = listener
        self._texts = [TextStream(tokenizer) if tokenizer else None for _ in range(n)]
        self._events: deque[tuple[int, int | None, str | None]] = deque()
        self._completions: list[Completion | None] = [None] * n
        self._error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether every sample has ended."""
        return None not in self._completions

    @property
    def completions(self) -> list[Completion]:
        """The answers of the samples that have ended."""
        return [each for each in self._completions if each is not None]

    def __iter__(self) -> Iterator[Piece]:
        """Yields pieces until every sample has ended; raises what ended one by an error."""
        try:
            while True:
                done = self.is_done
                yield from self.take()
                if done:
                    break
                self._engine.step()
            if self._error is not None:
                raise self._error
        finally:
            if not self.is_done:
                self.cancel()

    def take(self) -> Iterator[Piece]:
        """Yields the pieces that are there and were not taken yet; waits for none."""
        while self._events:
            piece = self._piece(*self._events.popleft())
            if piece.id is not None or piece.text:
                yield piece

    def result(self, timeout: float | None = None) -> Completion:
        """Returns the one answer; raises as `results`, and ValueError where there are several."""
        if len(self._completions) > 1:
            raise ValueError(f"result: the request has {len(self._completions)}: take results()")
        return self.results(timeout)[0]

    def results(self, timeout: float | None = None) -> list[Completion]:
        """Returns the answers, a sample each.

        Raises:
            TimeoutError: after so many seconds, between steps; the request goes on.
            Exception: what ended a sample by an error, with all answers as its `completions`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_done:
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"request {self.number}: no answer within {timeout} seconds")
            self._engine.step()
        found = self.completions
        if self._error is not None:
            self._error.completions = found  # type: ignore[attr-defined]
            raise self._error
        return found

    def cancel(self) -> None:
        """Ends the request; its pages are free again before the next step."""
        self._engine.cancel(self)

    # For the engine

    def push(self, sample: int, token: int | None, text: str | None) -> None:
        """Adds a token, with its text where the engine made it already."""
        self._events.append((sample, token, text))
        if self._listener is not None:
            self._listener()

    def finish(self, sample: int, completion: Completion, error: Exception | None = None) -> None:
        """Ends a sample."""
        self._error = self._error or error
        self._completions[sample] = completion
        if self._listener is not None:
            self._listener()

    def _piece(self, sample: int, token: int | None, text: str | None) -> Piece:
        stream = self._texts[sample]
        if text is None and stream is not None:
            if token is None:
                text = stream.finish()
            elif token not in self._ends:
                text = stream.push(token)
        return Piece(sample, text or "", token)
