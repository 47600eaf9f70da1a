"""Why a head attends: which pairs of what stands at the query and what stands at the key make its
score.

With norm scales frozen, a score before softmax is a sum over pairs of parts of the two residual
streams: embeddings, what features and errors wrote, what attention layers wrote, biases. Shapes:
n parts of a position, d d_model, h d_head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ...model.hooks.weight_views import AttentionWeights
from ...model.layers import RMSNorm
from ..dictionaries import kernels
from .graph import Graph
from .replacement import Replacement


@dataclass(frozen=True, eq=False)
class QueryKey:
    """The parts that make a head's score.

    Attributes:
        score: Of this query and key, scaled, before any soft cap.
        query_parts: Ids of nodes, and "attention_<layer>_<position>" and "bias_<position>".
        key_parts: The same at the key.
        weights: fp32 [n_query, n_key], which sum to the score.
    """

    score: float
    query_parts: tuple[str, ...]
    key_parts: tuple[str, ...]
    weights: torch.Tensor

    def strongest(self, n: int) -> list[tuple[str, str, float]]:
        """Returns the pairs of the largest magnitude: query part, key part, weight."""
        flat = self.weights.flatten()
        order = torch.sort(flat.abs(), descending=True, stable=True).indices[:n].tolist()
        width = len(self.key_parts)
        return [
            (self.query_parts[i // width], self.key_parts[i % width], float(flat[i])) for i in order
        ]


def query_key(graph: Graph, layer: int, head: int, query: int, key: int) -> QueryKey:
    """Returns which pairs of parts make a head attend from one position to another.

    Features that are active count whether or not they are nodes of the graph.

    Raises ValueError for a graph bound to no model, a layer, head or position that there is not, a
    key after the query, or one beyond the layer's window.
    """
    if graph.traced is None:
        raise ValueError("query_key: this graph is bound to no model; use graph.bind(...)")
    traced = graph.traced
    _check(traced, layer, head, query, key)
    parts = _Parts(traced, layer)
    of_query, of_key = parts.at(query), parts.at(key)
    q = parts.projected("q", head, query, of_query)
    k = parts.projected("k", head, key, of_key)
    scale = traced.frozen.model.config.attn_scale
    weights = kernels.dense(q, k, None) * scale
    return QueryKey(float(weights.double().sum()), tuple(of_query), tuple(of_key), weights)


def _check(traced: Replacement, layer: int, head: int, query: int, key: int) -> None:
    config = traced.frozen.model.config
    limits = (("layer", layer, config.n_layers), ("head", head, config.n_heads))
    positions = (("query", query, traced.n_positions), ("key", key, traced.n_positions))
    for name, value, n in (*limits, *positions):
        if not 0 <= value < n:
            raise ValueError(f"{name} = {value}: expected 0 to {n - 1}")
    window = config.layers[layer].window
    if key > query or (window is not None and key <= query - window):
        raise ValueError(f"layer {layer} does not look from position {query} at {key}")


class _Parts:
    """Parts of the residual stream before one layer."""

    def __init__(self, traced: Replacement, layer: int) -> None:
        self._traced, self._layer = traced, layer
        model = traced.frozen.model
        self._attention = [f"blocks.{i}.hook_attn_out" for i in range(layer)]
        self._norms = [f"blocks.{layer}.ln1.hook_scale"]
        if model.config.qk_norm:
            self._norms += [f"blocks.{layer}.attn.{x}_norm.hook_scale" for x in "qk"]
        with torch.no_grad():
            _, self._cache = model.run_with_cache(
                traced.frozen.tokens,
                [*self._attention, *self._norms],
                return_type=None,
                stop_at_layer=layer + 1,
            )

    def at(self, position: int) -> dict[str, torch.Tensor]:
        """Returns the parts at a position by name, [d] each; they sum to the residual stream."""
        r = self._traced
        token = int(r.frozen.tokens[0, position])
        found = {f"E_{token}_{position}": r.frozen.embed[position]}
        bias = torch.zeros_like(r.frozen.embed[position])
        for i in range(self._layer):
            found[f"attention_{i}_{position}"] = self._cache[self._attention[i]][
                0, position
            ].float()
            found[f"error_{i}_{position}"] = self._post(i, position, r.errors[i, position])
            bias = bias + self._post(i, position, self._constant(i, position))
            for source in r.transcoders.sources(i):
                self._add_features(source, i, position, found)
        found[f"bias_{position}"] = bias
        return found

    def projected(
        self, kind: str, head: int, position: int, parts: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns what each part gives a head's query or key, rotated, fp32 [n, h]; the last one,
        of biases, with the projection's own."""
        model, c = self._traced.frozen.model, self._traced.frozen.model.config
        block: Any = model.blocks[self._layer]
        attn: AttentionWeights = block.attn
        W, b = (attn.W_Q, attn.b_Q) if kind == "q" else (attn.W_K, attn.b_K)
        scale = self._cache[self._norms[0]][0, position].float()
        x = torch.stack(list(parts.values())) / scale * block.ln1.w.float()
        y = kernels.dense(x, W[head].float().T.contiguous(), None)
        y[-1] += b[head].float()
        if c.qk_norm:
            norm = block.attn.q_norm if kind == "q" else block.attn.k_norm
            n = head if kind == "q" else head // (c.n_heads // c.n_key_value_heads)
            scales = self._cache[f"blocks.{self._layer}.attn.{kind}_norm.hook_scale"]
            y = y / scales[0, position, n].float() * norm.w.float()
        at = torch.full((len(y),), position, dtype=torch.int64, device="cpu")
        rotated = model.ops.rope(
            y[:, None].to(model.ops.policy.activation), at, *c.layers[self._layer].rope
        )
        return rotated[:, 0].float()

    def _add_features(
        self, source: int, layer: int, position: int, found: dict[str, torch.Tensor]
    ) -> None:
        f, t = self._traced.features, self._traced.transcoders
        start, stop = f.spans[source]
        at = start + (f.position[start:stop] == position).nonzero()[:, 0]
        table, rows = t.decoder(source, layer, f.feature[at])
        written = table[rows.long()] * f.value[at][:, None]
        for number, vector in zip(f.feature[at].tolist(), written, strict=True):
            id = f"{source}_{number}_{position}"
            added = self._post(layer, position, vector)
            found[id] = found[id] + added if id in found else added

    def _constant(self, layer: int, position: int) -> torch.Tensor:
        """What a layer's transcoders write beside features: b_dec and the skip map's part."""
        t, frozen = self._traced.transcoders, self._traced.frozen
        b_dec, skip = t.b_dec(layer), t.skip(layer)
        total = torch.zeros_like(frozen.embed[position]) if b_dec is None else b_dec
        if skip is not None:
            x = frozen.read[layer][position : position + 1]
            total = total + kernels.dense(x, skip, None)[0]
        return total

    def _post(self, layer: int, position: int, vector: torch.Tensor) -> torch.Tensor:
        """What an MLP's output adds to the residual stream."""
        frozen = self._traced.frozen
        hook = self._traced.transcoders.writes.get(layer, "hook_mlp_out")
        if hook == "hook_mlp_out" or not frozen.model.config.sandwich_norms:
            return vector
        norm: RMSNorm = frozen.model.blocks[layer].ln2_post  # type: ignore[assignment]
        scale = frozen.scale(layer, "ln2_post")[position]
        return vector * norm.w.float() / scale
