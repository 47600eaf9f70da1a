"""The texts between which a model thinks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ThinkingLayout:
    """The texts around thinking, and those that lengthen or end it.

    The defaults are those of models that were trained to think (DeepSeek R1, Qwen 3). A model that
    was not has its own words: ThinkingLayout("Let me think.", "\\nAnswer:").

    Attributes:
        start: Opens the thinking, unless the prompt ends with it already, as some templates do.
        end: Ends it.
        wait: Written in the place of an end that comes too early (Muennighoff et al., "s1",
            arXiv:2501.19393).
        answer_prefix: Follows an end that was forced.

    Raises ValueError for an empty end or wait.
    """

    start: str = "<think>\n"
    end: str = "</think>"
    wait: str = "Wait"
    answer_prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("end", "wait"):
            if not getattr(self, name):
                raise ValueError(f"{name}: an empty text ends or lengthens nothing")


class EncodedLayout:
    """A layout in a tokenizer's ids."""

    def __init__(self, layout: ThinkingLayout, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.layout = layout
        self.start = tokenizer.encode(layout.start) if layout.start else []
        self.end = tokenizer.encode(layout.end)
        self.wait = tokenizer.encode(layout.wait)
        self.answer_prefix = tokenizer.encode(layout.answer_prefix) if layout.answer_prefix else []
        for name, ids in (("end", self.end), ("wait", self.wait)):
            if not ids:
                raise ValueError(
                    f"{name}: the tokenizer has no token for {getattr(layout, name)!r}"
                )

    @cached_property
    def stop(self) -> str | int:
        """The end as a stop: a token where it is one that never comes out as text."""
        return self.end[0] if self._is_hidden else self.layout.end

    @property
    def _is_hidden(self) -> bool:
        return len(self.end) == 1 and not self._tokenizer.decode(self.end)

    def opened(self, prompt: list[int]) -> list[int]:
        """Returns the prompt with thinking opened."""
        n = len(self.start)
        return prompt if n and prompt[-n:] == self.start else prompt + self.start

    def before_end(self, ids: list[int], text: str) -> list[int]:
        """Returns the longest beginning of `ids` that is no longer than the text before the end."""
        kept = len(ids)
        while kept and len(self._tokenizer.decode(ids[:kept])) > len(text):
            kept -= 1
        return ids[:kept]
