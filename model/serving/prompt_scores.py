"""The log-probabilities of a prompt's own tokens, from the passes that read it.

Tensor names: N tokens of a pass, S scored rows, d d_model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..generation.sequence import Logprobs
from ..sampling import SamplingParams, sample
from ..scores import logprob_of

HOOK = "unembed.hook_in"
ROWS = 256
"""Rows whose logits are there at a time."""


class ScoringModel(Protocol):
    """The part of a model that reads logits off normalized residual streams."""

    def unembed(self, x: torch.Tensor) -> torch.Tensor: ...

    @property
    def soft_cap(self) -> torch.nn.Module | None: ...


@dataclass(eq=False)
class PromptScores:
    """Scores one prompt. They outlive preemption: no token is scored twice.

    Attributes:
        n_best: Tokens to list in each token's place, the likeliest first.
        temperature: As `SamplingParams`; 0 reports at 1.
        first: The first position to read; tokens up to it get none.
        found: Of every token after it, as far as it goes.
    """

    model: ScoringModel
    prompt: list[int]
    n_best: int
    temperature: float
    first: int = 0
    found: list[Logprobs] = field(default_factory=list)

    @property
    def n_seen(self) -> int:
        """Positions that were read, each of which scored the token after it."""
        return self.first + len(self.found)

    @property
    def is_complete(self) -> bool:
        """Whether every token of the prompt that is to be was scored."""
        return self.n_seen >= len(self.prompt) - 1

    @property
    def listed(self) -> list[Logprobs | None]:
        """A place for each token, None where it has none."""
        n_without = min(self.first + 1, len(self.prompt))
        return [*[None] * n_without, *self.found]

    def see(self, start: int, x_Nd: torch.Tensor) -> None:
        """Scores what follows the positions from `start` on, of which those seen before are left
        out; `x_Nd` is what the last norm made of them."""
        skip = max(0, self.n_seen - start)
        stop = min(len(x_Nd), len(self.prompt) - 1 - start)
        for first in range(skip, stop, ROWS):
            last = min(first + ROWS, stop)
            self._score(x_Nd[first:last], self.prompt[start + first + 1 : start + last + 1])

    def _score(self, x_Sd: torch.Tensor, ids: list[int]) -> None:
        logits_SV = self.model.unembed(x_Sd[None])[0]
        if self.model.soft_cap is not None:
            logits_SV = self.model.soft_cap(logits_SV)
        ids_S = torch.tensor(ids, dtype=torch.int64, device="cpu")
        own = logprob_of(logits_SV, ids_S, self.temperature).tolist()
        best = [([], [])] * len(ids) if self.n_best == 0 else self._best(logits_SV)
        self.found += [(p, *pair) for p, pair in zip(own, best, strict=True)]

    def _best(self, logits_SV: torch.Tensor) -> list[tuple[list[int], list[float]]]:
        params = SamplingParams(temperature=self.temperature, logprobs=self.n_best)
        listed = sample(logits_SV.float(), params, positions=[0] * len(logits_SV))
        return [listed.best(row, self.n_best) for row in range(len(logits_SV))]
