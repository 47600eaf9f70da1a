"""The text and the calls of an answer's samples, told apart as they come."""

from __future__ import annotations

from ...text.tools import CallParser, Prepared, ToolCall
from ..handle import Piece

Part = str | ToolCall


class Speech:
    """Reads pieces of n samples.

    Attributes:
        parts: What each sample has said and called so far, in order.
    """

    def __init__(self, prepared: Prepared | None, n: int) -> None:
        self._parsers: list[CallParser | None] = [
            None if prepared is None else prepared.parser() for _ in range(n)
        ]
        self.parts: list[list[Part]] = [[] for _ in range(n)]

    def push(self, piece: Piece) -> list[Part]:
        """Returns what a piece adds to its sample."""
        parser = self._parsers[piece.sample]
        found: list[Part] = [piece.text] if piece.text else []
        if parser is not None:
            found = parser.push(piece.text, piece.id)
        return self._add(piece.sample, found)

    def end(self, sample: int) -> list[Part]:
        """Returns what a sample's end adds."""
        parser = self._parsers[sample]
        return [] if parser is None else self._add(sample, parser.finish())

    def text(self, sample: int) -> str:
        """Returns what a sample said."""
        return "".join(each for each in self.parts[sample] if isinstance(each, str))

    def calls(self, sample: int) -> list[ToolCall]:
        """Returns what a sample called."""
        return [each for each in self.parts[sample] if isinstance(each, ToolCall)]

    def blocks(self, sample: int) -> list[Part]:
        """Returns what a sample said and called, in order, text in one piece between calls and
        white space left out beside them."""
        found: list[Part] = []
        for part in self.parts[sample]:
            if isinstance(part, str) and found and isinstance(found[-1], str):
                found[-1] += part
            else:
                found.append(part)
        if not self.calls(sample):
            return found
        return [each for each in found if not isinstance(each, str) or each.strip()]

    def _add(self, sample: int, found: list[Part]) -> list[Part]:
        self.parts[sample] += found
        return found
