"""The share of each node in what reaches the logits.

Edges into a target count by magnitude, as parts of their sum. Influence of a node is the sum over
all paths from it to the logits of the products of these parts, each logit weighted by its
probability (Ameisen et al., 2025). Targets are visited from the last layer down, so that one visit
of each edge suffices.

Shapes: N nodes, R targets, E edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Level:
    """Edges into targets none of which is a source of another one of them.

    Attributes:
        targets: int64 [R].
        counts: int64 [R], edges into each.
        sources: int64 [E], target after target.
        weights: fp32 [E].
    """

    targets: torch.Tensor
    counts: torch.Tensor
    sources: torch.Tensor
    weights: torch.Tensor

    def parts(self) -> torch.Tensor:
        """Returns the magnitude of each edge as a part of its target's sum, fp64 [E]."""
        magnitude = self.weights.double().abs()
        row = torch.repeat_interleave(torch.arange(len(self.targets), device="cpu"), self.counts)
        totals = torch.bincount(row, magnitude, minlength=len(self.targets))
        return magnitude / totals.clamp(min=1e-300)[row]


def influence(levels: Iterable[Level], begin: torch.Tensor) -> torch.Tensor:
    """Returns the influence of every node, fp64 [N].

    Args:
        levels: From the logits down to the first layer.
        begin: fp64 [N], the weights of logits, 0 elsewhere; they stay the logits' influence.
    """
    found = begin.clone()
    for level in levels:
        passed = torch.repeat_interleave(found[level.targets], level.counts) * level.parts()
        found += torch.bincount(level.sources, passed, minlength=len(found))
    return found


def largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Returns a mask of the fewest entries that come to a share of all scores, bool [N].

    Of equal scores the first are taken.
    """
    if share in (0, 1):  # of all, the smallest may be lost in the sum
        return (scores > 0) & (share == 1)
    order = torch.sort(scores, descending=True, stable=True).indices
    kept = torch.zeros(len(scores), dtype=torch.bool, device="cpu")
    total = torch.cumsum(scores[order], 0)
    if len(scores) and float(total[-1]) > 0:
        kept[order[: int(torch.searchsorted(total, share * float(total[-1]))) + 1]] = True
    return kept


def cumulative(scores: torch.Tensor) -> torch.Tensor:
    """Returns for each entry the share of the total that it and the larger ones come to."""
    order = torch.sort(scores, descending=True, stable=True).indices
    sums = torch.cumsum(scores[order], 0)
    found = torch.empty_like(scores)
    if len(scores):
        found[order] = sums / sums[-1].clamp(min=1e-300)
    return found


def concatenated(rows: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Returns rows one after another; empty without any."""
    return (
        torch.cat([row.to(dtype) for row in rows])
        if rows
        else torch.zeros(0, dtype=dtype, device="cpu")
    )
