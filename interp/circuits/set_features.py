"""The model as it runs when features, errors or embeddings are set, nothing frozen.

At what a layer's MLP writes, y becomes y + sum of (value - activation now) * decoder row, the
features by layer, position and number, in fp32, rounded once to the hook's dtype.

Shapes: T positions, d d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...model.hooks.registry import HookFunction, HookPoint
from .graph_data import Node
from .replacement import Replacement
from .transcoders import weighted_decoders


class _Setting:
    """Hooks that set nodes in one run."""

    def __init__(self, traced: Replacement, values: Mapping[Node, float]) -> None:
        self._traced = traced
        order = sorted(values, key=lambda node: (node.layer, node.position, node.feature))
        self._values = {node: values[node] for node in order}
        self._changes: dict[int, torch.Tensor] = {}
        self.logits: torch.Tensor | None = None

    def hooks(self) -> list[tuple[str, HookFunction]]:
        """Returns the functions to install."""
        t = self._traced.transcoders
        found: list[tuple[str, HookFunction]] = [("unembed.hook_out", self._keep)]
        if any(node.kind == "embedding" for node in self._values):
            found.append(("hook_embed", self._embed))
        for layer in self._layers("feature"):
            found.append((t.read_hook(layer), self._read(layer)))
        first = min([*self._layers("feature"), *self._layers("error")], default=t.n_layers)
        for layer in range(first, t.n_layers):
            found.append((t.write_hook(layer), self._write(layer)))
        return found

    def _of(self, layer: int, kind: str) -> list[Node]:
        return [n for n in self._values if n.kind == kind and n.layer == layer]

    def _layers(self, kind: str) -> list[int]:
        return sorted({node.layer for node in self._values if node.kind == kind})

    def _embed(self, tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        for node, value in self._values.items():
            if node.kind == "embedding":
                tensor[0, node.position] *= value
        return tensor

    def _read(self, layer: int) -> HookFunction:
        def read(tensor: torch.Tensor, *, hook: HookPoint) -> None:
            nodes = self._of(layer, "feature")
            acts = self._traced.transcoders.encode(layer, tensor[0].float()).dense()
            now = [float(acts[n.position, n.feature]) for n in nodes]
            self._changes[layer] = torch.tensor(
                [self._values[n] - a for n, a in zip(nodes, now, strict=True)],
                dtype=torch.float32,
                device="cpu",
            )

        return read

    def _write(self, layer: int) -> HookFunction:
        def write(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            t, n = self._traced.transcoders, tensor.shape[1]
            y = tensor[0].float()
            for source in t.sources(layer):
                if source in self._changes:
                    nodes = self._of(source, "feature")
                    features = torch.tensor([node.feature for node in nodes], device="cpu")
                    positions = torch.tensor([node.position for node in nodes], device="cpu")
                    y = y + weighted_decoders(
                        t, source, layer, features, self._changes[source], positions, n
                    )
            for node in self._of(layer, "error"):
                error = self._traced.errors[layer, node.position]
                y[node.position] += (self._values[node] - 1) * error
            return y.to(tensor.dtype)[None]

        return write

    def _keep(self, tensor: torch.Tensor, *, hook: HookPoint) -> None:
        self.logits = tensor[0, -1].float().clone()


def edited_logits(traced: Replacement, values: Mapping[Node, float]) -> torch.Tensor:
    """Returns the last position's logits before any soft cap, fp32 [V], with nodes set."""
    setting = _Setting(traced, values)
    with torch.no_grad():
        traced.frozen.model.run_with_hooks(traced.frozen.tokens, setting.hooks())
    assert setting.logits is not None
    return setting.logits
