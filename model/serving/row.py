"""One sample of a request on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..cache.prefix_cache import HeldPrompt
from ..generation.chooser import Chooser
from ..generation.decoding import joined
from ..generation.sequence import Sequence
from .handle import Handle
from .request import Completion, FinishReason, Request, Usage


@dataclass(eq=False)
class Row:
    """A sample: its tokens, its rules, and while it runs its pages.

    Attributes:
        sequence: Prompt and new tokens.
        held: Its pages; None while it waits.
        n_cached: Tokens of the prompt that were in the cache when it first ran; None before.
        captured: By hook name, what each of its passes captured.
        names: Hooks to capture.
    """

    handle: Handle
    request: Request
    sequence: Sequence
    chooser: Chooser
    names: frozenset[str]
    held: HeldPrompt | None = None
    n_cached: int | None = None
    n_written: int = 0
    captured: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def sample(self) -> int:
        return self.sequence.draw

    @property
    def tokens(self) -> list[int]:
        """Every token so far."""
        return self.sequence.prompt + self.sequence.new

    def next_tokens(self, n: int) -> list[int]:
        """Returns the next n that no pass has run on."""
        start = self.length - len(self.sequence.prompt)
        return (
            self.sequence.new[start : start + n] if start >= 0 else self.tokens[self.length :][:n]
        )

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
    def is_over(self) -> bool:
        """Whether it needs no further token."""
        new = self.sequence.new
        return self.sequence.ended is not None or len(new) >= self.request.max_new_tokens

    def completion(self, reason: FinishReason) -> Completion:
        """Returns the answer so far."""
        sequence = self.sequence
        usage = Usage(len(sequence.prompt), self.n_cached or 0, self.n_written, len(sequence.new))
        seed = self.chooser.params.seed
        assert seed is not None
        return Completion(
            prompt_ids=list(sequence.prompt),
            ids=list(sequence.new),
            text=sequence.stream.text if sequence.stream is not None else "",
            logprobs=list(sequence.logprobs) if self.request.logprobs is not None else None,
            finish_reason=reason,
            seed=seed,
            usage=usage,
            stopped_by=sequence.stream.stopped_by if sequence.stream is not None else None,
            captured={name: joined(name, steps) for name, steps in self.captured.items()},
        )
