"""Edges: how much each feature, error and embedding adds to a target, exactly, patterns and scales
frozen.

An edge is the source's value times the derivative of the target's pre-activation by it. All edges
into a target, and its bias, sum to its pre-activation. Derivatives of a batch of targets are
propagated together, layer by layer, and only through positions that reach them.

Shapes: B targets, T positions, E entries, n features, s sources in all, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..dictionaries import kernels
from .replacement import Replacement


@dataclass(frozen=True, eq=False)
class Rows:
    """Edges into targets.

    Attributes:
        weights: fp32 [B, s]: from features, errors by layer and position, embeddings.
        bias: fp64 [B]: what encoders' biases, b_dec and attention biases add.
    """

    weights: torch.Tensor
    bias: torch.Tensor


class Attribution:
    """Edges into targets of one prompt. Sources are numbered: features as they are listed, then
    errors by layer and position, then embeddings by position."""

    def __init__(self, replacement: Replacement) -> None:
        self.replacement = replacement
        r = replacement
        self.n_features = len(r.features)
        self.n_errors = r.n_layers * r.n_positions
        self.n_sources = self.n_features + self.n_errors + r.n_positions

    def error(self, layer: int, position: int) -> int:
        """Returns the number of an error among sources."""
        return self.n_features + layer * self.replacement.n_positions + position

    def embedding(self, position: int) -> int:
        """Returns the number of an embedding among sources."""
        return self.n_features + self.n_errors + position

    def of_features(self, targets: torch.Tensor) -> Rows:
        """Returns the edges into features, by their numbers, int64 [B]; row i belongs to target i.

        Those of the highest layers set out first; the others join them where they are.
        """
        f, t = self.replacement.features, self.replacement.transcoders
        order = torch.sort(f.layer[targets], descending=True, stable=True).indices
        numbers = targets[order]
        n = int(f.position[numbers].max()) + 1
        bias = torch.empty(len(numbers), dtype=torch.float64, device="cpu")
        joining: dict[int, torch.Tensor] = {}
        for layer in torch.unique(f.layer[numbers]).tolist():
            at = f.layer[numbers] == layer
            position, feature = f.position[numbers[at]], f.feature[numbers[at]]
            bias[at] = t.encoder_bias(layer, feature).double()
            vectors = t.encoder(layer, feature)
            g_Bd = self.replacement.frozen.from_read(layer, t.reads[layer], vectors, position)
            joining[layer] = _scattered(g_Bd, position, n)
        none = torch.zeros(
            0, n, self.replacement.errors.shape[2], dtype=torch.float32, device="cpu"
        )
        rows = self._down(max(joining), none, joining, bias)
        back = torch.argsort(order)
        return Rows(rows.weights[back], rows.bias[back])

    def of_directions(self, vectors_Bd: torch.Tensor) -> Rows:
        """Returns the edges into directions of what the unembedding reads at the last position."""
        r = self.replacement
        last = torch.full((len(vectors_Bd),), r.n_positions - 1, dtype=torch.int64, device="cpu")
        g = _scattered(r.frozen.final_direction(vectors_Bd), last, r.n_positions)
        return self._down(
            r.n_layers - 1, g, {}, torch.zeros(len(g), dtype=torch.float64, device="cpu")
        )

    def _down(
        self, layer: int, g: torch.Tensor, joining: dict[int, torch.Tensor], bias: torch.Tensor
    ) -> Rows:
        """Edges from the gradient of the residual stream after a block, and from those that join
        it before a block's MLP: collects what every MLP from `layer` down and the embedding add."""
        weights = torch.zeros(len(bias), self.n_sources, dtype=torch.float32, device="cpu")
        for i in range(layer, -1, -1):
            if len(g):
                g = self._collect(i, g, weights[: len(g)], bias[: len(g)])
            if i in joining:
                g = torch.cat([g, joining[i]])
            if len(g):
                g, added = self.replacement.frozen.through_attention(i, g)
                bias[: len(g)] += added
        start = self.embedding(0)
        weights[:, start : start + g.shape[1]] = _products(g, self.replacement.frozen.embed)
        return Rows(weights, bias)

    def _collect(
        self, layer: int, g: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Adds what a layer's MLP wrote; returns the gradient before it, skip maps included."""
        r = self.replacement
        hook = r.transcoders.writes.get(layer, "hook_mlp_out")
        written = r.frozen.to_written(layer, hook, g)
        n = g.shape[1]
        start = self.error(layer, 0)
        weights[:, start : start + n] = _products(written, r.errors[layer])
        for source in r.transcoders.sources(layer):
            at = r.features.until(source, n)
            weights[:, at] += self._from_features(source, layer, at, written)
        b_dec = r.transcoders.b_dec(layer)
        if b_dec is not None:
            bias += _products(written, b_dec[None].expand(n, -1)).double().sum(1)
        skip = r.transcoders.skip(layer)
        if skip is None:
            return g
        through = kernels.dense(written.reshape(-1, written.shape[2]), skip.T.contiguous(), None)
        through = through.view(g.shape)
        hook = r.transcoders.reads[layer]
        return g + r.frozen.from_read(layer, hook, through, torch.arange(n, device="cpu"))

    def _from_features(
        self, source: int, layer: int, at: slice, written: torch.Tensor
    ) -> torch.Tensor:
        """[B, E]: what features of a layer add through what they write to another one."""
        r = self.replacement
        n_batch, n, d = written.shape
        f = r.features
        table, rows = r.transcoders.decoder(source, layer, f.feature[at])
        starts = torch.zeros(n_batch * n + 1, dtype=torch.int64, device="cpu")
        torch.cumsum(f.counts(source, n).repeat(n_batch), 0, out=starts[1:])
        x = written.reshape(n_batch * n, d)
        dots = kernels.gathered_dots(x, rows.repeat(n_batch), starts, table)
        return dots.view(n_batch, -1) * f.value[at]


def _scattered(g_Bd: torch.Tensor, positions: torch.Tensor, n: int) -> torch.Tensor:
    """[B, n, d] with each direction at its position."""
    g = torch.zeros(len(g_Bd), n, g_Bd.shape[1], dtype=torch.float32, device="cpu")
    g[torch.arange(len(g_Bd), device="cpu"), positions] = g_Bd
    return g


def _products(g_BTd: torch.Tensor, rows_Td: torch.Tensor) -> torch.Tensor:
    """[B, T]: each position's gradient times that position's row."""
    n_batch, n, d = g_BTd.shape
    at = torch.arange(n, dtype=torch.int32, device="cpu").repeat(n_batch)
    starts = torch.arange(n_batch * n + 1, device="cpu")
    return kernels.gathered_dots(g_BTd.reshape(-1, d), at, starts, rows_Td[:n]).view(n_batch, n)
