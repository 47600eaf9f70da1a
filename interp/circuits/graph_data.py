"""The contents of an attribution graph: nodes and weighted edges.

Shapes: E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["feature", "error", "embedding", "logit"]


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        id: Unique in its graph.
        layer: -1 of embeddings, the number of layers of logits.
        position: Of its token.
        feature: Number of a feature in its layer; the token of an embedding or a logit; -1.
        activation: A feature's, or the logit less the mean of all logits; 1 of errors and
            embeddings, which are there once.
        label: For people.
        probability: A logit's.
        bias: What biases on the way add to it.
        omitted: The sum of edges into it that the graph does not hold.
    """

    id: str
    kind: Kind
    layer: int
    position: int
    feature: int
    activation: float
    label: str
    probability: float | None = None
    bias: float = 0.0
    omitted: float = 0.0


@dataclass(frozen=True, eq=False)
class GraphData:
    """The causes of a prompt's next token.

    An edge is the part of its target's activation that its source adds, attention patterns and norm
    scales taken as they were. Edges into a feature or logit, its bias and what is omitted sum to
    its activation.

    Attributes:
        nodes: Features by layer and position, then errors, embeddings, logits.
        sources: int64 [E], by number in `nodes`.
        targets: int64 [E], ascending.
        weights: fp32 [E].
        input_tokens: The prompt's token ids.
        metadata: Model, transcoders, prompt, settings.
    """

    nodes: tuple[Node, ...]
    sources: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    input_tokens: tuple[int, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
