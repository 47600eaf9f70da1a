"""Attribution graphs: what led from a prompt to its next token, as nodes and weighted edges.

Shapes: N nodes, E edges, K logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...model.transformer import HookedTransformer
from . import graph_json
from .graph_data import GraphData, Kind, Node
from .influence import Level, cumulative, influence, largest
from .intervention import Intervention, measured_changes, predicted_changes
from .replacement import Replacement, replacement_of
from .transcoders import Transcoders, layer_transcoders


@dataclass(frozen=True, eq=False)
class Graph(GraphData):
    """An attribution graph: what it shows, what of it matters, and how to test it.

    Attributes:
        traced: What it was made from; None of a graph that was loaded.
    """

    traced: Replacement | None = None

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each node by its id."""
        return {node.id: i for i, node in enumerate(self.nodes)}

    def node(self, id: str) -> Node:
        """Returns a node. Raises KeyError for an id that is none."""
        if id not in self.index:
            raise KeyError(f"the graph has no node {id!r}; pruning may have removed it")
        return self.nodes[self.index[id]]

    @property
    def logit_targets(self) -> tuple[int, ...]:
        """The tokens of the logits, the most probable first."""
        return tuple(node.feature for node in self.nodes if node.kind == "logit")

    @property
    def logit_probabilities(self) -> tuple[float, ...]:
        """Their probabilities."""
        return tuple(node.probability or 0.0 for node in self.nodes if node.kind == "logit")

    @cached_property
    def influence(self) -> torch.Tensor:
        """Each node's part in what reaches the logits, fp64 [N]; logits have their probability,
        made to sum to 1."""
        begin = torch.tensor(
            [n.probability or 0.0 for n in self.nodes], dtype=torch.float64, device="cpu"
        )
        total = float(begin.sum())
        return influence(self.levels(), begin / total if total else begin)

    @cached_property
    def completeness(self) -> float:
        """The part of all nodes' input that comes from no error, nodes weighted by influence; those
        that have no input count as complete, as circuit-tracer's do."""
        by_error = torch.zeros(len(self.nodes), dtype=torch.float64, device="cpu")
        is_error = self.of_kind("error").double()
        for level in self.levels():
            row = torch.repeat_interleave(level.targets, level.counts)
            from_errors = level.parts() * is_error[level.sources]
            by_error += torch.bincount(row, from_errors, minlength=len(by_error))
        total = float(self.influence.sum())
        return float(((1 - by_error) * self.influence).sum()) / total if total else 0.0

    @cached_property
    def replacement(self) -> float:
        """The part of what reaches the logits that begins in an embedding, and not in an error."""
        from_text = float(self.influence[self.of_kind("embedding")].sum())
        both = from_text + float(self.influence[self.of_kind("error")].sum())
        return from_text / both if both else 0.0

    def of_kind(self, kind: Kind) -> torch.Tensor:
        """Returns which nodes are of a kind, bool [N]."""
        return torch.tensor([node.kind == kind for node in self.nodes], device="cpu")

    def levels(self) -> list[Level]:
        """Returns the edges by the layer of their targets, the logits' first."""
        layers = torch.tensor([node.layer for node in self.nodes], device="cpu")
        of_edge = layers[self.targets]
        found = []
        for layer in sorted(set(of_edge.tolist()), reverse=True):
            at = of_edge == layer
            targets, counts = torch.unique_consecutive(self.targets[at], return_counts=True)
            found.append(Level(targets, counts, self.sources[at], self.weights[at]))
        return found

    def prune(self, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> Graph:
        """Returns the part of the graph that most influence passes through.

        Of features those are kept that together have `node_threshold` of the influence of all; then
        of edges those that carry `edge_threshold` of it; then features are removed from which no
        edge leads on, or into which none does. Embeddings and logits stay, and so do errors: a
        graph does not look better than it is. What is removed of a target's edges adds to its
        `omitted`.

        Raises ValueError for a threshold that is not from 0 to 1.
        """
        for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value}: expected a part from 0 to 1")
        is_feature = self.of_kind("feature")
        kept = largest(self.influence.where(is_feature, 0.0), node_threshold) | ~is_feature
        between = self.restricted(kept, kept[self.sources] & kept[self.targets])
        edges = largest(between.carried(), edge_threshold)
        nodes, edges = between.without_loose_ends(edges)
        settings = {"node_threshold": node_threshold, "edge_threshold": edge_threshold}
        pruned = between.restricted(nodes, edges)
        return replace(pruned, metadata={**self.metadata, "pruning_settings": settings})

    def without_loose_ends(self, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the nodes and edges, bool [N] and bool [E], that are left of some edges without
        features from which none of them leads on, or into which none does."""
        is_feature = self.of_kind("feature")
        while True:
            leads, led = (
                torch.zeros(len(self.nodes), dtype=torch.bool, device="cpu") for _ in range(2)
            )
            leads[self.sources[edges]] = True
            led[self.targets[edges]] = True
            nodes = ~is_feature | (leads & led)
            left = edges & nodes[self.sources] & nodes[self.targets]
            if torch.equal(left, edges):
                return nodes, edges
            edges = left

    def carried(self) -> torch.Tensor:
        """Returns the influence that each edge carries, fp64 [E]."""
        found = torch.empty(len(self.weights), dtype=torch.float64, device="cpu")
        layers = torch.tensor([node.layer for node in self.nodes], device="cpu")[self.targets]
        for level in self.levels():
            layer = self.nodes[int(level.targets[0])].layer
            through = torch.repeat_interleave(self.influence[level.targets], level.counts)
            found[layers == layer] = through * level.parts()
        return found

    def restricted(self, nodes: torch.Tensor, edges: torch.Tensor) -> Graph:
        """Returns the graph of some nodes, bool [N], and some edges between them, bool [E]."""
        removed = torch.bincount(
            self.targets[~edges], self.weights[~edges].double(), minlength=len(self.nodes)
        ).tolist()
        numbers = torch.cumsum(nodes.long(), 0) - 1
        kept = tuple(
            replace(node, omitted=node.omitted + removed[i]) if removed[i] else node
            for i, node in enumerate(self.nodes)
            if nodes[i]
        )
        return Graph(
            kept,
            numbers[self.sources[edges]],
            numbers[self.targets[edges]],
            self.weights[edges],
            self.input_tokens,
            self.metadata,
            self.traced,
        )

    def cumulative_influence(self) -> torch.Tensor:
        """Returns the share of influence that a node and those above it have, fp64 [N]."""
        return cumulative(self.influence.where(~self.of_kind("logit"), 0.0))

    def with_supernodes(self, groups: Mapping[str, Sequence[str]]) -> Graph:
        """Returns the graph with named groups of nodes, which its file shows as supernodes.

        Raises KeyError for an id that is no node.
        """
        found = [[name, *(self.node(id).id for id in ids)] for name, ids in groups.items()]
        return replace(self, metadata={**self.metadata, "supernodes": found})

    def intervene(self, values: Mapping[str, float], frozen: bool = True) -> Intervention:
        """Sets nodes to values; returns what the graph predicts and what the model does.

        Args:
            values: By node id: an activation of a feature, a factor on an error or an embedding;
                0 ablates.
            frozen: Whether patterns, norm scales and which features are active stay as they were,
                and features that are no node of this graph keep their values: what the graph
                speaks of. Otherwise the model runs as it is, with only these values set.

        Raises:
            KeyError: an id that is no node.
            ValueError: a logit, a value that is no finite number, or a graph that was loaded and is
                bound to no model (`bind`).
        """
        chosen = {self.node(id): float(value) for id, value in values.items()}
        for node, value in chosen.items():
            if node.kind == "logit":
                raise ValueError(
                    f"{node.id} is a logit, which nothing follows: set what leads to it"
                )
            if not math.isfinite(value):
                raise ValueError(f"{node.id}: {value} is no finite number")
        traced = self.bound("intervene")
        by_number = {self.index[node.id]: value for node, value in chosen.items()}
        predicted = predicted_changes(self.nodes, self.levels(), by_number)
        measured = measured_changes(traced, self.nodes, chosen, self.logit_targets, frozen=frozen)
        return Intervention(predicted[self.of_kind("logit")], measured)

    def bound(self, caller: str) -> Replacement:
        """Returns the model's run that the graph is of. Raises ValueError, in the caller's name,
        for a graph that was loaded and is bound to none."""
        if self.traced is None:
            raise ValueError(
                f"{caller}: this graph was loaded and is bound to no model; use "
                "graph.bind(model, dictionaries)"
            )
        return self.traced

    def save(self, path: str | Path) -> None:
        """Writes the graph as Neuronpedia and circuit-tracer read it.

        The same graph gives the same bytes. Raises OSError where it cannot be written.
        """
        graph_json.write(Path(path), self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Returns what `save` writes."""
        return graph_json.as_json(self, self.cumulative_influence().tolist())

    def bind(self, model: HookedTransformer, dictionaries: Transcoders) -> Graph:
        """Returns the graph with what it was made from, so that it can be tested: runs the model.

        Raises DictionaryError for dictionaries that do not fit the model, and ValueError for
        another model's graph.
        """
        expected = self.metadata.get("model_fingerprint")
        if expected is not None and expected != model.fingerprint():
            raise ValueError(
                f"the graph is of a model with fingerprint {str(expected)[:12]}...; {model.name} "
                f"has {model.fingerprint()[:12]}..."
            )
        tokens = torch.tensor([self.input_tokens], dtype=torch.int64, device="cpu")
        traced = replacement_of(model, tokens, layer_transcoders(dictionaries, model))
        return replace(self, traced=traced)

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Reads a graph that `save` wrote, or circuit-tracer.

        Raises FileNotFoundError, and ValueError naming the field for one that is damaged.
        """
        return cls(**vars(graph_json.read(Path(path))))
