"""Token ids to text as they arrive, never half a character and never beyond a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from .tokenizer import Tokenizer

_INCOMPLETE = "�"


class TextStream:
    """The text of one growing sequence.

    Ids are decoded in a window that begins a few tokens back, since decoding may depend on what
    precedes (SentencePiece drops a text's first space). Text that may be the beginning of a stop
    string is held back.

    Attributes:
        text: What was released so far.
        stopped_by: The stop string that came; nothing is released after it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids: list[int] = []
        self._window = 0  # decoding begins here
        self._decoded = 0  # ids before this one are text already
        self._held = ""
        self.text = ""
        self.stopped_by: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self.stopped_by is not None

    def emptied(self) -> TextStream:
        """Returns a stream of the same rules to which nothing was added."""
        return TextStream(self._tokenizer, self._stops)

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """Adds a token; returns the text it releases. Without `may_stop`, stops are ignored."""
        self._ids.append(token_id)
        return self._release(self._decode(), may_stop=may_stop)

    def finish(self) -> str:
        """Releases what was held back; an incomplete character shows as U+FFFD."""
        if self.stopped:
            return ""
        rest = self._held + self._decode(complete=True)
        self._held = ""
        self.text += rest
        return rest

    def _decode(self, *, complete: bool = False) -> str:
        before = self._tokenizer.decode(self._ids[self._window : self._decoded])
        text = self._tokenizer.decode(self._ids[self._window :])
        if text.endswith(_INCOMPLETE) and not complete:
            return ""
        self._window, self._decoded = self._decoded, len(self._ids)
        return text[len(before) :]

    def _release(self, new: str, *, may_stop: bool) -> str:
        text, self._held = self._held + new, ""
        if may_stop:
            found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
            if found:
                at, self.stopped_by = min(found)
                text = text[:at]
            else:
                keep = len(text) - max((_overlap(text, s) for s in self._stops), default=0)
                text, self._held = text[:keep], text[keep:]
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
