"""Examples as one padded batch, and the log-probabilities of what counts in them.

Tensor names: B sequences, P padded positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from .examples import Example

E = TypeVar("E")


class Policy(Protocol):
    """The part of a model that training runs."""

    def logprobs(
        self,
        tokens: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        scored: torch.Tensor | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class Padded:
    """A batch, padded on the right with a token that nothing attends to.

    Attributes:
        tokens: int64 [B, P].
        mask: int64 [B, P], 1 at real tokens.
        scored: bool [B, P], the tokens that count.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    scored: torch.Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Padded:
        """Pads examples."""
        width = max(len(example.ids) for example in examples)
        tokens = torch.zeros(len(examples), width, dtype=torch.int64, device="cpu")
        mask, scored = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
        for b, example in enumerate(examples):
            n = len(example.ids)
            tokens[b, :n] = torch.tensor(example.ids, dtype=torch.int64, device="cpu")
            mask[b, :n] = 1
            scored[b, :n] = torch.tensor(example.scored(), dtype=torch.bool, device="cpu")
        return cls(tokens, mask, scored)

    def logprobs(self, policy: Policy, temperature: float = 1.0) -> torch.Tensor:
        """Returns ln p of the tokens that count, fp32 [B, P], 0 elsewhere."""
        return policy.logprobs(self.tokens, self.mask, scored=self.scored, temperature=temperature)


def parts(examples: Sequence[E], size: int) -> Iterator[Sequence[E]]:
    """Cuts a batch into microbatches."""
    for first in range(0, len(examples), size):
        yield examples[first : first + size]
