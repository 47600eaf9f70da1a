"""`trace`: from a prompt to its attribution graph.

Shapes: T positions, K logits, s sources, V vocabulary, d d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...model.text.prompts import Tokens
from ...model.transformer import HookedTransformer
from .attribution import Attribution
from .budget import DEFAULT_MEMORY, Budget, PromptSize, budget_of, keeps_patterns
from .edges import Edges
from .frozen import check_freezable
from .graph import Graph
from .influence import Level, influence
from .logits import LogitTargets, logit_targets
from .nodes import graph_of
from .replacement import replacement_of
from .transcoders import Transcoders, layer_transcoders

_ROUNDS = 8
"""Rounds in which features are chosen, each by what the rounds before found."""

Progress = Callable[[int, int], None]
"""Called with targets done and targets in all."""


def trace(
    model: HookedTransformer,
    prompt: Tokens,
    dictionaries: Transcoders,
    *,
    max_feature_nodes: int = 7500,
    max_n_logits: int = 10,
    desired_logit_prob: float = 0.95,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Graph:
    """Returns the attribution graph of what the model predicts after a prompt.

    Features of the transcoders stand for the MLPs, errors for what they miss; attention patterns
    and norm scales are taken as the prompt leaves them. Where more features are active than
    `max_feature_nodes`, those of most influence on the logits are taken, found round by round; the
    edges of the others count in each node's `omitted`. The same inputs give the same bits on any
    number of threads.

    Args:
        prompt: A text, or token ids of one sequence.
        dictionaries: Transcoders of a model's layers, as `load_dictionaries` returns them, or a
            cross-layer transcoder.
        max_feature_nodes: Most features in the graph.
        max_n_logits: Most logits in it.
        desired_logit_prob: Logits are taken, the most probable first, until they come to this.
        max_memory: Bytes beyond model and dictionaries; None allows 4 GiB. What does not fit is
            computed again (patterns) or summed up (the smallest edges, in `omitted`).
        progress: Called after every batch of targets.

    Raises:
        DictionaryError: dictionaries that do not fit the model, or are no transcoders.
        ValueError: a prompt that is empty or several, a budget that is too small, a model under
            hf_bf16 or over several ranks.
    """
    _check_budgets(max_feature_nodes, max_n_logits, desired_logit_prob)
    check_freezable(model)
    transcoders = layer_transcoders(dictionaries, model)
    tokens = _one_prompt(model, prompt)
    memory = DEFAULT_MEMORY if max_memory is None else max_memory
    config = model.config
    size = PromptSize(
        tokens.shape[1], config.n_layers, config.n_heads, config.d_model, max_n_logits
    )
    budget_of(memory, size, size.n_positions * (config.n_layers + 1))
    keep = keeps_patterns(memory, size)
    replaced = replacement_of(model, tokens, transcoders, keep_patterns=keep)
    attribution = Attribution(replaced)
    n_features = min(max_feature_nodes, len(replaced.features))
    size = PromptSize(
        size.n_positions, size.n_layers, size.n_heads, size.d_model, n_features + max_n_logits
    )
    budget = budget_of(memory, size, attribution.n_sources)
    logits = logit_targets(replaced.frozen, max_n_logits, desired_logit_prob)
    tracer = _Tracer(attribution, logits, budget, n_features, progress)
    metadata = _metadata(model, prompt, transcoders.name)
    metadata["generation_settings"] = {
        "max_n_logits": max_n_logits,
        "desired_logit_prob": desired_logit_prob,
        "max_feature_nodes": max_feature_nodes,
        "batch_size": budget.batch,
    }
    return graph_of(attribution, tracer.edges(), logits, metadata)


class _Tracer:
    """Finds edges into the logits, then into the features of most influence."""

    def __init__(
        self,
        attribution: Attribution,
        logits: LogitTargets,
        budget: Budget,
        n_features: int,
        progress: Progress | None,
    ) -> None:
        self._attribution = attribution
        self._logits = logits
        self._budget = budget
        self._n_features = n_features
        self._progress = progress
        self._edges = Edges(budget.edges)
        self._visited = torch.zeros(attribution.n_features, dtype=torch.bool, device="cpu")
        self._layer = attribution.replacement.features.layer

    def edges(self) -> Edges:
        """Returns the edges; targets are numbered as sources are, logits after them."""
        a = self._attribution
        first = list(range(a.n_sources, a.n_sources + len(self._logits.tokens)))
        for start in range(0, len(first), self._budget.batch):
            part = slice(start, start + self._budget.batch)
            self._edges.add(first[part], a.of_directions(self._logits.directions[part]))
        left = self._n_features
        size = -(-left // _ROUNDS) if left < a.n_features else left
        while left:
            chosen = self._most_influential(min(size, left))
            self._add(chosen)
            left -= len(chosen)
        return self._edges

    def _most_influential(self, n: int) -> torch.Tensor:
        """The n features that are not visited yet and influence the logits most, ascending."""
        if n >= int((~self._visited).sum()):
            return (~self._visited).nonzero()[:, 0]
        n_sources = self._attribution.n_sources
        begin = torch.zeros(n_sources + len(self._logits.tokens), dtype=torch.float64, device="cpu")
        begin[n_sources:] = self._logits.weights()
        found = influence(self._levels(), begin)[: len(self._visited)]
        found[self._visited] = -1.0
        order = torch.sort(found, descending=True, stable=True).indices
        return order[:n].sort().values

    def _levels(self) -> list[Level]:
        """The edges so far by the layer of their targets, the logits' first."""
        e, n = self._edges, self._attribution.n_features
        layers: dict[int, list[int]] = {}
        for row, target in enumerate(e.targets):
            layer = int(self._layer[target]) if target < n else self._attribution.n_sources
            layers.setdefault(layer, []).append(row)
        found = []
        for _, rows in sorted(layers.items(), reverse=True):
            targets = torch.tensor([e.targets[row] for row in rows], device="cpu")
            counts = torch.tensor([len(e.sources[row]) for row in rows], device="cpu")
            sources = torch.cat([e.sources[row] for row in rows]).long()
            weights = torch.cat([e.weights[row] for row in rows])
            found.append(Level(targets, counts, sources, weights))
        return found

    def _add(self, chosen: torch.Tensor) -> None:
        """Finds the edges into these features, those of near positions together."""
        position = self._attribution.replacement.features.position[chosen]
        by_position = chosen[torch.sort(position, stable=True).indices]
        for batch in torch.split(by_position, self._budget.batch):
            self._edges.add(batch.tolist(), self._attribution.of_features(batch))
            self._visited[batch] = True
            if self._progress is not None:
                done = len(self._edges) - len(self._logits.tokens)
                self._progress(done, self._n_features)


def _check_budgets(max_feature_nodes: int, max_n_logits: int, desired_logit_prob: float) -> None:
    for name, value, least in (
        ("max_feature_nodes", max_feature_nodes, 0),
        ("max_n_logits", max_n_logits, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} = {value!r}: expected an integer from {least} on")
    if not 0 < desired_logit_prob <= 1:
        raise ValueError(f"desired_logit_prob = {desired_logit_prob}: expected above 0, up to 1")


def _one_prompt(model: HookedTransformer, prompt: Tokens) -> torch.Tensor:
    """Token ids int64 [1, T] of one sequence."""
    if isinstance(prompt, str):
        tokens = model.to_tokens(prompt)
    elif isinstance(prompt, torch.Tensor):
        tokens = prompt
    else:
        if isinstance(prompt, Sequence) and any(isinstance(each, str) for each in prompt):
            raise ValueError("trace: one prompt at a time; a graph is of one sequence")
        tokens = torch.tensor(prompt, dtype=torch.int64, device="cpu")
    tokens = tokens[None] if tokens.ndim == 1 else tokens
    if tokens.ndim != 2 or tokens.shape[0] != 1 or tokens.shape[1] < 1:
        raise ValueError(f"trace: expected one sequence of tokens, got shape {list(tokens.shape)}")
    return tokens


def _metadata(model: HookedTransformer, prompt: Tokens, transcoders: str) -> dict[str, Any]:
    return {
        "model_name": Path(model.name).name,
        "model_fingerprint": model.fingerprint(),
        "policy": model.ops.policy.name,
        "transcoders": transcoders,
        "prompt": prompt if isinstance(prompt, str) else None,
    }
