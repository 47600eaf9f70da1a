"""Whether what a graph says is what the model does: features ablated one by one, nothing frozen.

A cross-layer transcoder may leave steps out: where a feature writes to a later layer what the model
computes there from an earlier step, ablating it removes the step's effect twice, once with the step
and once with the feature. The model then does more than the graph predicts (slope above 1), though
completeness and replacement see nothing. Shapes: n features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .graph import Graph


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Effects of ablations on the first logit, less the mean of all logits.

    Attributes:
        node_ids: The features, of the largest influence first.
        predicted: fp64 [n], by the edges.
        measured: fp64 [n], of the model as it runs, nothing frozen.
        spearman: Rank correlation of the two; NaN of fewer than two features.
        slope: Measured over predicted, by least squares through 0; 1 of a faithful graph.
        relative_error: |measured - predicted| over |predicted|, norms over all features.
    """

    node_ids: tuple[str, ...]
    predicted: torch.Tensor
    measured: torch.Tensor
    spearman: float
    slope: float
    relative_error: float


def faithfulness(graph: Graph, n_features: int = 50, *, from_layer: int = 0) -> Faithfulness:
    """Ablates the features of most influence; returns what was predicted and what was measured.

    Runs the model once a feature. `from_layer` takes features of this layer and later ones alone.
    Raises ValueError for a graph without such features, or bound to no model.
    """
    layers = torch.tensor([node.layer for node in graph.nodes], device="cpu")
    is_feature = graph.of_kind("feature") & (layers >= from_layer)
    order = torch.sort(
        graph.influence.where(is_feature, -1.0), descending=True, stable=True
    ).indices
    ids = [graph.nodes[i].id for i in order[: min(n_features, int(is_feature.sum()))].tolist()]
    if not ids:
        raise ValueError(f"faithfulness: the graph has no features from layer {from_layer} on")
    found = [graph.intervene({id: 0.0}, frozen=False) for id in ids]
    predicted = torch.stack([each.predicted[0] for each in found])
    measured = torch.stack([each.measured[0] for each in found])
    square = float((predicted * predicted).sum())
    return Faithfulness(
        tuple(ids),
        predicted,
        measured,
        spearman(predicted, measured),
        float((predicted * measured).sum()) / square if square else float("nan"),
        (float((measured - predicted).square().sum()) / square) ** 0.5 if square else float("nan"),
    )


def spearman(x: torch.Tensor, y: torch.Tensor) -> float:
    """Returns the rank correlation of two samples, equal values sharing their mean rank."""
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / norm if norm else float("nan")


def _ranks(x: torch.Tensor) -> torch.Tensor:
    _, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks: torch.Tensor = ends - (counts.double() - 1) / 2
    return ranks[inverse]
