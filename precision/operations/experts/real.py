"""The gate of experts over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array
from ..softmax.real import softmax_of

Tensor = torch.Tensor


def moe_gate(
    over: Algebra,
    x: Tensor,
    k: int,
    score: str,
    renormalize: bool,
    factor: float,
    bias: Tensor | None,
    chosen: Tensor,
    undecided: Tensor,
) -> Array:
    """A bias takes part in the choice alone."""
    r = over.lift(x)
    scores = softmax_of(over, r) if score == "softmax" else over.lift(1.0) / (over.exp(-r) + 1.0)
    kept = scores * over.lift(chosen)
    if renormalize:
        kept = kept / over.sum(kept)
    unsaid = torch.zeros(x.shape, dtype=torch.float64).masked_fill(undecided, torch.nan)
    return kept * over.lift(factor) + over.lift(unsaid)
