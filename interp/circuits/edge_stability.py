"""Edges over several runs of one question: other precisions, other words.

Nodes are matched without their positions, which paraphrases move: an edge's weight is the sum over
all pairs of positions. Shapes: R runs, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .graph_data import GraphData, Node

Key = tuple[str, str]
"""Source and target without positions, such as "token 42", "7/123" (a feature), "error 7"."""


@dataclass(frozen=True, eq=False)
class EdgeStability:
    """The differences of edges between runs.

    Attributes:
        edges: Those of any run, of the largest mean magnitude first.
        weights: fp64 [R, E]; 0 where a run has no such edge.
        mean: fp64 [E].
        error: fp64 [E], the standard error of the mean; NaN of a single run.
        stable: Bool [E]: in every run, of one sign, and |mean| above twice its error.
    """

    edges: tuple[Key, ...]
    weights: torch.Tensor
    mean: torch.Tensor
    error: torch.Tensor
    stable: torch.Tensor

    @property
    def stable_share(self) -> float:
        """The part of all magnitude that stable edges have, 1 of no edges."""
        magnitude = self.mean.abs()
        total = float(magnitude.sum())
        return float(magnitude[self.stable].sum()) / total if total else 1.0


def edge_stability(graphs: Sequence[GraphData]) -> EdgeStability:
    """Returns how the edges of graphs of one question differ.

    Raises ValueError for fewer than two graphs.
    """
    if len(graphs) < 2:
        raise ValueError(f"edge_stability: {len(graphs)} graph; error bars need two or more")
    runs = [_sums(graph) for graph in graphs]
    keys = sorted({key for run in runs for key in run})
    weights = torch.tensor(
        [[run.get(key, 0.0) for key in keys] for run in runs], dtype=torch.float64, device="cpu"
    ).view(len(runs), len(keys))
    mean = weights.mean(0)
    error = weights.std(0) / len(runs) ** 0.5
    same_sign = (weights > 0).all(0) | (weights < 0).all(0)
    stable = same_sign & (mean.abs() > 2 * error)
    order = torch.sort(mean.abs(), descending=True, stable=True).indices
    return EdgeStability(
        tuple(keys[i] for i in order.tolist()),
        weights[:, order],
        mean[order],
        error[order],
        stable[order],
    )


def _sums(graph: GraphData) -> dict[Key, float]:
    names = [_name(node) for node in graph.nodes]
    found: dict[Key, float] = {}
    ends = zip(graph.sources.tolist(), graph.targets.tolist(), strict=True)
    for (source, target), weight in zip(ends, graph.weights.tolist(), strict=True):
        key = names[source], names[target]
        found[key] = found.get(key, 0.0) + weight
    return found


def _name(node: Node) -> str:
    if node.kind == "feature":
        return f"{node.layer}/{node.feature}"
    if node.kind == "error":
        return f"error {node.layer}"
    if node.kind == "logit":
        return f"logit {node.feature}"
    return f"token {node.feature}"
