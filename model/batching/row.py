"""One sequence on its way through a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch

from ..cache.page_pool import pages_of
from ..cache.sequence_pages import HeldPrompt
from ..generation.chooser import Chooser
from ..generation.sequence import Sequence

FinishReason = Literal["stop", "length", "alarm", "cancelled", "deadline", "error"]
"""Why an answer ended: a token or text that ends it, its length, a monitor, the client, the clock,
or an error."""

R = TypeVar("R", bound="Row")


@dataclass(eq=False)
class Row(ABC):
    """A sequence: its tokens, its rules, and while it runs its pages. Nobody watches it, unless
    its kind says so.

    Attributes:
        sequence: Prompt and new tokens.
        place: Its place in the order of arrival.
        held: Its pages; None while it waits.
        n_cached: Tokens of the prompt that were there when it first ran; None before.
        n_written: Tokens of the prompt that it computed, once it has ended.
        is_finished: Whether it has ended.
    """

    sequence: Sequence
    chooser: Chooser
    place: int
    held: HeldPrompt | None = field(default=None, init=False)
    n_cached: int | None = field(default=None, init=False)
    n_written: int = field(default=0, init=False)
    is_finished: bool = field(default=False, init=False)

    # Its tokens

    @property
    def tokens(self) -> list[int]:
        """Every token so far."""
        return self.sequence.prompt + self.sequence.new

    def next_tokens(self, n: int) -> list[int]:
        """Returns the next n that no pass has run on."""
        length = self.length
        start = length - len(self.sequence.prompt)
        return self.sequence.new[start : start + n] if start >= 0 else self.tokens[length:][:n]

    @property
    def n_tokens(self) -> int:
        return len(self.sequence.prompt) + len(self.sequence.new)

    @property
    def length(self) -> int:
        """Tokens whose keys and values it holds."""
        return 0 if self.held is None else self.held.sequence.length

    @property
    def n_unread(self) -> int:
        """Tokens that no pass has run on: one while it writes."""
        return self.n_tokens - self.length

    @property
    def n_due(self) -> int:
        """Tokens that its next passes run on: those to look at again come first."""
        return self.n_unseen or self.n_unread

    def n_missing_pages(self, n_tokens: int) -> int:
        """Returns the pages that so many of its tokens need beside its own."""
        assert self.held is not None
        return max(0, pages_of(n_tokens) - len(self.held.sequence.pages))

    # Who may share its pages, and who watches it

    @property
    def salt(self) -> str:
        """Only prompts with the same salt share pages."""
        return ""

    @property
    def is_observed(self) -> bool:
        """Whether somebody asked to see it."""
        return False

    @property
    def observed_names(self) -> frozenset[str]:
        """Hooks that somebody wants to see."""
        return frozenset()

    @property
    def observed_from(self) -> int | None:
        """The first token that somebody wants to see and has not seen yet; None for none."""
        return None

    @property
    def n_unseen(self) -> int:
        """Tokens whose keys and values it holds, and that somebody is still to see."""
        return 0

    @property
    def runs_alone(self) -> bool:
        """Whether its passes hold no other row."""
        return False

    # Nothing to do where nobody watches.

    def observe(  # noqa: B027
        self, start: int, n: int, found: Mapping[str, torch.Tensor]
    ) -> None:
        """Shows whoever asked what a pass over n tokens from `start` on found, [1, n, ...] by
        name."""

    def note_replayed(self, end: int) -> None:  # noqa: B027
        """Counts what was found in the cache and ran again, up to a position."""

    def forget_captures(self) -> None:  # noqa: B027
        """Begins to capture again, since its keys and values are given up."""

    # Its end

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether it needs no further pass."""

    @abstractmethod
    def write(self, token: int, text: str) -> None:
        """Takes a token that was chosen, and the text that it released."""

    @abstractmethod
    def finish(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Ends the answer."""
