"""Whether what a graph says is what the model does: features ablated one by one, nothing frozen.

A cross-layer transcoder may leave steps out: where a feature writes to a later layer what the model
computes there from an earlier step, ablating it removes the step's effect twice, once with the step
and once with the feature. The model then does more than the graph predicts (slope above 1), though
completeness and replacement see nothing.

Circuit Tracing (Ameisen et al., 2025) asks less: whether features of more influence on the logits
have more effect on the next token's distribution, whichever logits they move and whereto.
`influence_spearman` is that figure; theirs is .72. Shapes: n features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .graph import Graph
from .intervention import centred, predicted_changes
from .replacement import Replacement
from .set_features import edited_logits


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Effects of ablations: on the first logit, less the mean of all logits, and on the whole
    distribution of the next token.

    Attributes:
        node_ids: The features, of the largest influence first.
        predicted: fp64 [n], by the edges.
        measured: fp64 [n], of the model as it runs, nothing frozen.
        divergences: fp64 [n], KL of the next token's distribution from the ablated one, in nats.
        spearman: Rank correlation of predicted and measured; NaN of fewer than two features.
        influence_spearman: Rank correlation of influence and divergences.
        slope: Measured over predicted, by least squares through 0; 1 of a faithful graph.
        relative_error: |measured - predicted| over |predicted|, norms over all features.
    """

    node_ids: tuple[str, ...]
    predicted: torch.Tensor
    measured: torch.Tensor
    divergences: torch.Tensor
    spearman: float
    influence_spearman: float
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
    chosen = order[: min(n_features, int(is_feature.sum()))].tolist()
    if not chosen:
        raise ValueError(f"faithfulness: the graph has no features from layer {from_layer} on")
    traced = graph.bound("faithfulness")
    target, first = graph.logit_targets[0], int(graph.of_kind("logit").nonzero()[0])
    before_V = traced.frozen.logits()
    after = [edited_logits(traced, {graph.nodes[i]: 0.0}) for i in chosen]
    levels = graph.levels()
    predicted = torch.stack(
        [predicted_changes(graph.nodes, levels, {i: 0.0})[first] for i in chosen]
    )
    before = centred(before_V)[target]
    measured = torch.stack([centred(x_V)[target] - before for x_V in after])
    log_p_V = _log_probabilities(traced, before_V)
    divergences = torch.stack(
        [(log_p_V.exp() * (log_p_V - _log_probabilities(traced, x_V))).sum() for x_V in after]
    )
    square = float((predicted * predicted).sum())
    return Faithfulness(
        tuple(graph.nodes[i].id for i in chosen),
        predicted,
        measured,
        divergences,
        spearman(predicted, measured),
        spearman(graph.influence[chosen], divergences),
        float((predicted * measured).sum()) / square if square else float("nan"),
        (float((measured - predicted).square().sum()) / square) ** 0.5 if square else float("nan"),
    )


def _log_probabilities(traced: Replacement, logits_V: torch.Tensor) -> torch.Tensor:
    """The next token's distribution, fp64 [V], of logits before any soft cap."""
    soft_cap = traced.frozen.model.soft_cap
    capped_V = logits_V if soft_cap is None else soft_cap(logits_V[None])[0]
    return torch.log_softmax(capped_V.double(), dim=-1)


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
