"""From edges between numbered sources to a graph of nodes."""

from __future__ import annotations

from typing import Any

import torch

from ...model.transformer import HookedTransformer
from .attribution import Attribution
from .edges import Edges
from .graph import Graph
from .graph_data import Node
from .influence import concatenated
from .logits import LogitTargets


def graph_of(
    attribution: Attribution, edges: Edges, logits: LogitTargets, metadata: dict[str, Any]
) -> Graph:
    """Returns the graph of the features that edges lead into, and of errors, embeddings and logits.

    Edges from features without a node add to their targets' `omitted`; errors that no edge leaves
    have no node.
    """
    a, r = attribution, attribution.replacement
    kept = torch.zeros(a.n_sources + len(logits.tokens), dtype=torch.bool, device="cpu")
    kept[edges.targets] = True
    kept[a.embedding(0) : a.n_sources] = True
    errors = slice(a.n_features, a.embedding(0))
    for each in edges.sources:
        at = each.long()
        kept[at[(at >= errors.start) & (at < errors.stop)]] = True
    numbers = torch.cumsum(kept.long(), 0) - 1
    order = sorted(range(len(edges)), key=lambda row: edges.targets[row])
    sources: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    omitted: dict[int, float] = {}
    for row in order:
        at = edges.sources[row].long()
        there = kept[at]
        lost = float(edges.weights[row][~there].double().sum()) + edges.omitted[row]
        omitted[edges.targets[row]] = lost
        sources.append(numbers[at[there]])
        weights.append(edges.weights[row][there])
        targets.append(
            torch.full(
                (int(there.sum()),),
                int(numbers[edges.targets[row]]),
                dtype=torch.int64,
                device="cpu",
            )
        )
    bias = dict(zip(edges.targets, edges.bias, strict=True))
    tokens = r.frozen.tokens[0].tolist()
    make = _Nodes(attribution, logits, bias, omitted)
    return Graph(
        tuple(make(i) for i in kept.nonzero()[:, 0].tolist()),
        concatenated(sources, torch.int64),
        concatenated(targets, torch.int64),
        concatenated(weights, torch.float32),
        tuple(tokens),
        metadata,
        r,
    )


class _Nodes:
    """Makes nodes of numbered sources and logits."""

    def __init__(
        self,
        attribution: Attribution,
        logits: LogitTargets,
        bias: dict[int, float],
        omitted: dict[int, float],
    ) -> None:
        self._a, self._logits, self._bias, self._omitted = attribution, logits, bias, omitted
        r = attribution.replacement
        self._tokens: list[int] = r.frozen.tokens[0].tolist()
        self._strings = token_strings(r.frozen.model, self._tokens)

    def __call__(self, i: int) -> Node:
        """Returns the node of a number."""
        a, r = self._a, self._a.replacement
        if i < a.n_features:
            return self._feature(i)
        if i < a.embedding(0):
            layer, position = divmod(i - a.n_features, r.n_positions)
            label = f"error of layer {layer} at {self._strings[position]!r}"
            return Node(f"error_{layer}_{position}", "error", layer, position, -1, 1.0, label)
        if i < a.n_sources:
            position = i - a.embedding(0)
            token, label = self._tokens[position], self._strings[position]
            return Node(f"E_{token}_{position}", "embedding", -1, position, token, 1.0, label)
        return self._logit(i)

    def _feature(self, i: int) -> Node:
        f = self._a.replacement.features
        layer, position, feature = int(f.layer[i]), int(f.position[i]), int(f.feature[i])
        return Node(
            f"{layer}_{feature}_{position}",
            "feature",
            layer,
            position,
            feature,
            float(f.value[i]),
            f"feature {feature} of layer {layer} at {self._strings[position]!r}",
            bias=self._bias[i],
            omitted=self._omitted[i],
        )

    def _logit(self, i: int) -> Node:
        r = self._a.replacement
        k = i - self._a.n_sources
        token, p = int(self._logits.tokens[k]), float(self._logits.probabilities[k])
        (label,) = token_strings(r.frozen.model, [token])
        return Node(
            f"{r.n_layers + 1}_{token}_{r.n_positions - 1}",
            "logit",
            r.n_layers,
            r.n_positions - 1,
            token,
            float(self._logits.values[k]),
            f'Output "{label}" (p={p:.3f})',
            probability=p,
            bias=self._bias[i],
            omitted=self._omitted[i],
        )


def token_strings(model: HookedTransformer, tokens: list[int]) -> list[str]:
    """Returns the text of tokens; their numbers where the model has no tokenizer."""
    if model.tokenizer is None:
        return [str(token) for token in tokens]
    return model.tokenizer.token_strings(tokens)
