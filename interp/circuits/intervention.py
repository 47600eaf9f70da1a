"""Nodes set to values: what a graph predicts of it, and what the model then does.

Shapes: N nodes, K logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from .frozen_run import frozen_logits
from .graph_data import Node
from .influence import Level
from .replacement import Replacement
from .set_features import edited_logits


class Intervention(NamedTuple):
    """Changes of a graph's logits, each less the mean of all logits."""

    predicted: torch.Tensor
    """fp64 [K], by the edges of the graph."""

    measured: torch.Tensor
    """fp64 [K], of the model."""


def predicted_changes(
    nodes: Sequence[Node], levels: Sequence[Level], values: Mapping[int, float]
) -> torch.Tensor:
    """Returns the change of each node by the edges, fp64 [N].

    A feature follows its input; one that is set does not.
    """
    change = torch.zeros(len(nodes), dtype=torch.float64, device="cpu")
    activation = torch.tensor(
        [node.activation for node in nodes], dtype=torch.float64, device="cpu"
    )
    is_set = torch.zeros(len(nodes), dtype=torch.bool, device="cpu")
    for i, value in values.items():
        change[i], is_set[i] = value - nodes[i].activation, True
    for level in reversed(levels):
        row = torch.repeat_interleave(level.targets, level.counts)
        passed = level.weights.double() * change[level.sources] / activation[level.sources]
        moved = torch.bincount(row, passed, minlength=len(nodes))
        change = torch.where(is_set, change, change + moved)
    return change


def measured_changes(
    traced: Replacement,
    nodes: Sequence[Node],
    values: Mapping[Node, float],
    tokens: Sequence[int],
    *,
    frozen: bool,
) -> torch.Tensor:
    """Returns the change of the logits of some tokens when the model runs so, fp64 [K]."""
    after = frozen_logits(traced, nodes, values) if frozen else edited_logits(traced, values)
    before = traced.frozen.logits()
    at = torch.tensor(tokens, dtype=torch.int64, device="cpu")
    return (centred(after) - centred(before))[at]


def centred(logits_V: torch.Tensor) -> torch.Tensor:
    """Returns logits less their mean, fp64 [V]."""
    x = logits_V.double()
    return x - x.mean()
