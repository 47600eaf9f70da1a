"""The next tokens that a graph explains, and their directions.

Shapes: K logits, V vocabulary, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...model.transformer import HookedTransformer
from .frozen import FrozenPass

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class LogitTargets:
    """The most probable next tokens.

    Attributes:
        tokens: int64 [K], the most probable first, of equal ones the first.
        probabilities: fp64 [K].
        directions: fp32 [K, d]: the unembedding's row less the mean of all rows.
        values: fp64 [K]: the logit, before any soft cap, less the mean of all logits.
    """

    tokens: torch.Tensor
    probabilities: torch.Tensor
    directions: torch.Tensor
    values: torch.Tensor

    def weights(self) -> torch.Tensor:
        """Returns the probabilities, made to sum to 1, fp64 [K]."""
        return self.probabilities / self.probabilities.sum()


def logit_targets(frozen: FrozenPass, most: int, probability: float) -> LogitTargets:
    """Returns the fewest tokens that come to a probability, at most so many."""
    model, logits_V = frozen.model, frozen.logits()
    seen = logits_V[None] if model.soft_cap is None else model.soft_cap(logits_V[None])
    p = torch.softmax(seen[0].double(), dim=0)
    order = torch.sort(seen[0], descending=True, stable=True).indices[:most]
    enough = int((torch.cumsum(p[order], 0) < probability).sum()) + 1
    tokens = order[:enough]
    values = logits_V.double()
    rows = _rows(model, tokens)
    return LogitTargets(tokens, p[tokens], rows - mean_row(model), values[tokens] - values.mean())


def mean_row(model: HookedTransformer) -> torch.Tensor:
    """Returns the mean of the unembedding's rows, fp32 [d], summed in fp64."""
    n = model.config.d_vocab
    total = torch.zeros(model.config.d_model, dtype=torch.float64, device="cpu")
    for start in range(0, n, _ROWS):
        total += (
            _rows(model, torch.arange(start, min(n, start + _ROWS), device="cpu")).double().sum(0)
        )
    return (total / n).float()


def _rows(model: HookedTransformer, tokens: torch.Tensor) -> torch.Tensor:
    unembed = model.unembed
    return unembed.ops.embed(tokens, unembed.weight, 1.0).float()
