"""A model whose MLPs are replaced by what transcoders predict, errors left out.

Tensor names: T ragged rows (real tokens), d d_model.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from ...model.hooks.registry import HookFunction, HookPoint
from ..circuits.transcoders import LayerTranscoders
from ..dictionaries import Features


class ReplacedLayers:
    """Hooks of one pass: some layers' MLPs write what is decoded.

    Features are those of the pass itself, so they see what earlier layers' replacements did. The
    first token of each sequence keeps what the MLP wrote: no transcoder is trained on it.
    """

    def __init__(self, transcoders: LayerTranscoders, layers: Collection[int]) -> None:
        self._transcoders = transcoders
        self._layers = frozenset(layers)
        self._features: dict[int, Features] = {}
        self._read: dict[int, torch.Tensor] = {}

    def hooks(self) -> list[tuple[str, HookFunction]]:
        """Returns the functions to install."""
        t = self._transcoders
        needed = {source for layer in self._layers for source in t.sources(layer)}
        found = [(t.read_hook(i), self._encode(i)) for i in sorted(needed)]
        return found + [(t.write_hook(i), self._decode(i)) for i in sorted(self._layers)]

    def _encode(self, layer: int) -> HookFunction:
        def encode(tensor: torch.Tensor, *, hook: HookPoint) -> None:
            assert hook.batch is not None
            x_Td = hook.batch.strip(tensor).float()
            self._features[layer] = self._transcoders.encode(layer, x_Td)
            self._read[layer] = x_Td

        return encode

    def _decode(self, layer: int) -> HookFunction:
        def decode(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            assert hook.batch is not None
            y_Td = hook.batch.strip(tensor)
            y_hat = self._transcoders.decode(layer, self._features, self._read.get(layer))
            first_T = hook.batch.positions_T == 0
            return hook.batch.pad(torch.where(first_T[:, None], y_Td, y_hat.to(y_Td.dtype)))

        return decode
