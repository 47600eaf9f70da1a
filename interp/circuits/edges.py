"""Edges as they are found: a sparse row a target, within a budget.

Shapes: B targets, s sources, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .attribution import Rows


@dataclass(eq=False)
class Edges:
    """Rows of edges, in the order in which targets were added.

    Attributes:
        most: Edges of a target that are kept, the largest; the others' sum is `omitted`.
        targets: The node of each row.
        sources: int32 [E] of each row, ascending.
        weights: fp32 [E] of each row.
        bias: What a target's biases add.
        omitted: The sum of the edges that were not kept.
    """

    most: int
    targets: list[int] = field(default_factory=list)
    sources: list[torch.Tensor] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    bias: list[float] = field(default_factory=list)
    omitted: list[float] = field(default_factory=list)

    def add(self, targets: list[int], rows: Rows) -> None:
        """Appends the edges into some nodes."""
        for target, weights_s, bias in zip(targets, rows.weights, rows.bias.tolist(), strict=True):
            found = weights_s.nonzero()[:, 0]
            weights = weights_s[found]
            omitted = 0.0
            if len(found) > self.most:
                order = torch.sort(weights.abs(), descending=True, stable=True).indices
                kept = order[: self.most].sort().values
                omitted = float(weights.double().sum() - weights[kept].double().sum())
                found, weights = found[kept], weights[kept]
            self.targets.append(target)
            self.sources.append(found.to(torch.int32))
            self.weights.append(weights.clone())
            self.bias.append(bias)
            self.omitted.append(omitted)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_edges(self) -> int:
        return sum(len(each) for each in self.sources)
