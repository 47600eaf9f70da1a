"""The replacement model of a prompt: its features, its errors, and the pass that they come from.

Features stand for the MLPs; what they miss stays as an error of each layer and position, so with
no edit every MLP's output is the model's own. Layers without a transcoder are errors altogether,
and features at position 0, whose activations are unlike all others, are set to 0, as
circuit-tracer does.

Shapes: T positions, n features in all, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...model.transformer import HookedTransformer
from ..dictionaries import Features
from .frozen import FrozenPass
from .transcoders import LayerTranscoders


@dataclass(frozen=True, eq=False)
class ActiveFeatures:
    """The active features of a prompt, by layer, position and number.

    Attributes:
        layer: int64 [n].
        position: int64 [n].
        feature: int64 [n].
        value: fp32 [n].
        spans: Where each layer's features are among them, [start, stop).
    """

    layer: torch.Tensor
    position: torch.Tensor
    feature: torch.Tensor
    value: torch.Tensor
    spans: dict[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.value)

    def until(self, layer: int, n_positions: int) -> slice:
        """Returns those of a layer at the first positions."""
        start, stop = self.spans[layer]
        n = int(torch.searchsorted(self.position[start:stop], n_positions))
        return slice(start, start + n)

    def counts(self, layer: int, n_positions: int) -> torch.Tensor:
        """Returns how many a layer has at each of the first positions, int64 [n_positions]."""
        at = self.until(layer, n_positions)
        return torch.bincount(self.position[at], minlength=n_positions)


@dataclass(frozen=True, eq=False)
class Replacement:
    """A prompt in terms of features and errors.

    Attributes:
        frozen: The pass.
        transcoders: What the features are of.
        features: Those that are active.
        errors: fp32 [L, T, d]: what the MLP wrote less what features and b_dec predict.
    """

    frozen: FrozenPass
    transcoders: LayerTranscoders
    features: ActiveFeatures
    errors: torch.Tensor

    @property
    def n_positions(self) -> int:
        return self.frozen.n_positions

    @property
    def n_layers(self) -> int:
        return self.transcoders.n_layers


def replacement_of(
    model: HookedTransformer,
    tokens: torch.Tensor,
    transcoders: LayerTranscoders,
    *,
    keep_patterns: bool = True,
) -> Replacement:
    """Runs a model on tokens int64 [1, T] and encodes what its MLPs read.

    Raises ValueError where the model cannot be frozen, or its activations hold NaN.
    """
    reads = {i: transcoders.read_hook(i) for i in transcoders.layers}
    writes = {i: transcoders.write_hook(i) for i in range(transcoders.n_layers)}
    frozen = FrozenPass(model, tokens, reads, writes, keep_patterns=keep_patterns)
    encoded = {i: without_first(transcoders.encode(i, frozen.read[i])) for i in transcoders.layers}
    errors = []
    for i in range(transcoders.n_layers):
        y = frozen.written[i]
        if i in encoded:
            y = y - transcoders.decode(i, encoded, frozen.read[i])
        errors.append(y)
    return Replacement(frozen, transcoders, _listed(encoded), torch.stack(errors))


def without_first(features: Features) -> Features:
    """Returns features of rows [T] without those of the first row."""
    first = int(features.indptr[1])
    indptr = (features.indptr - first).clamp(min=0)
    return Features(indptr, features.indices[first:], features.values[first:], features.shape)


def _listed(encoded: dict[int, Features]) -> ActiveFeatures:
    layers, positions, numbers, values = [], [], [], []
    spans, at = {}, 0
    for i, each in encoded.items():
        n = len(each.values)
        layers.append(torch.full((n,), i, dtype=torch.int64, device="cpu"))
        positions.append(each.rows())
        numbers.append(each.indices.long())
        values.append(each.values)
        spans[i] = (at, at + n)
        at += n
    return ActiveFeatures(
        torch.cat(layers), torch.cat(positions), torch.cat(numbers), torch.cat(values), spans
    )
