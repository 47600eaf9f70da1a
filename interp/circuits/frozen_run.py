"""The replacement model as it runs: features instead of MLPs, patterns and norm scales frozen.

What an MLP wrote stays as it was, to which is added what its features change by:
y + sum of (value - activation) * decoder row, by layer, position and number, in fp32, rounded once
to the hook's dtype. Features that are nodes follow their input, active as they were; others keep
their values. With nothing set the logits are the model's, bit for bit.

Shapes: T positions, n nodes of a layer, d d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...model.hooks.registry import HookFunction, HookPoint
from ..dictionaries import kernels
from .frozen import pattern_hook
from .graph_data import Node
from .replacement import Replacement
from .transcoders import weighted_decoders


class _LayerNodes:
    """Feature nodes of a layer, by position and number.

    Attributes:
        position: int64 [n].
        feature: int64 [n].
        set_to: fp32 [n], what is set; NaN where nothing is.
        activation: fp32 [n].
    """

    def __init__(self, nodes: Sequence[Node], values: Mapping[Node, float]) -> None:
        nodes = sorted(nodes, key=lambda node: (node.position, node.feature))
        self.position = torch.tensor(
            [node.position for node in nodes], dtype=torch.int64, device="cpu"
        )
        self.feature = torch.tensor(
            [node.feature for node in nodes], dtype=torch.int64, device="cpu"
        )
        self.activation = torch.tensor(
            [node.activation for node in nodes], dtype=torch.float32, device="cpu"
        )
        self.set_to = torch.tensor(
            [values.get(node, float("nan")) for node in nodes], dtype=torch.float32, device="cpu"
        )


class _FrozenRun:
    """Hooks of one run."""

    def __init__(
        self, traced: Replacement, nodes: Sequence[Node], values: Mapping[Node, float]
    ) -> None:
        self._traced = traced
        self._errors = {n: v for n, v in values.items() if n.kind == "error"}
        self._embeddings = {n: v for n, v in values.items() if n.kind == "embedding"}
        of_layer: dict[int, list[Node]] = {i: [] for i in traced.transcoders.layers}
        for node in nodes:
            if node.kind == "feature":
                of_layer[node.layer].append(node)
        self._nodes = {i: _LayerNodes(each, values) for i, each in of_layer.items()}
        self._changes: dict[int, torch.Tensor] = {}
        self._moved: dict[int, torch.Tensor] = {}
        self.logits: torch.Tensor | None = None

    def hooks(self) -> list[tuple[str, HookFunction]]:
        """Returns the functions to install."""
        t, frozen = self._traced.transcoders, self._traced.frozen
        found: list[tuple[str, HookFunction]] = [("unembed.hook_out", self._keep)]
        if self._embeddings:
            found.append(("hook_embed", self._embed))
        for i in range(t.n_layers):
            found.append((pattern_hook(i), _giving(frozen.patterns[i])))
        for name, scale in frozen.scales():
            found.append((name, _giving(scale)))
        for i in t.layers:
            found.append((t.read_hook(i), self._read(i)))
        for i in range(t.n_layers):
            found.append((t.write_hook(i), self._write(i)))
        return found

    def _embed(self, tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        for node, value in self._embeddings.items():
            tensor[0, node.position] *= value
        return tensor

    def _read(self, layer: int) -> HookFunction:
        def read(tensor: torch.Tensor, *, hook: HookPoint) -> None:
            t, nodes = self._traced.transcoders, self._nodes[layer]
            moved = tensor[0].float() - self._traced.frozen.read[layer]
            self._moved[layer] = moved
            if not len(nodes.feature):
                return
            at = torch.arange(len(nodes.feature), dtype=torch.int32, device="cpu")
            starts = torch.searchsorted(nodes.position, torch.arange(len(moved) + 1, device="cpu"))
            follows = kernels.gathered_dots(moved, at, starts, t.encoder(layer, nodes.feature))
            is_set = ~nodes.set_to.isnan()
            self._changes[layer] = torch.where(is_set, nodes.set_to - nodes.activation, follows)

        return read

    def _write(self, layer: int) -> HookFunction:
        def write(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
            t, frozen = self._traced.transcoders, self._traced.frozen
            y = frozen.written[layer].clone()
            for source in t.sources(layer):
                change = self._changes.get(source)
                if change is not None and bool((change != 0).any()):
                    nodes = self._nodes[source]
                    y = y + weighted_decoders(
                        t, source, layer, nodes.feature, change, nodes.position, len(y)
                    )
            skip = t.skip(layer)
            if skip is not None and bool((self._moved[layer] != 0).any()):
                y = y + kernels.dense(self._moved[layer], skip, None)
            for node, value in self._errors.items():
                if node.layer == layer:
                    error = self._traced.errors[layer, node.position]
                    y[node.position] += (value - 1) * error
            return y.to(tensor.dtype)[None]

        return write

    def _keep(self, tensor: torch.Tensor, *, hook: HookPoint) -> None:
        self.logits = tensor[0, -1].float().clone()


def frozen_logits(
    traced: Replacement, nodes: Sequence[Node], values: Mapping[Node, float]
) -> torch.Tensor:
    """Returns the last position's logits before any soft cap, fp32 [V], with nodes set."""
    run = _FrozenRun(traced, nodes, values)
    with torch.no_grad():
        traced.frozen.model.run_with_hooks(traced.frozen.tokens, run.hooks())
    assert run.logits is not None
    return run.logits


def _giving(value: torch.Tensor) -> HookFunction:
    """A function that puts a value in place of what it sees, [1, T, ...]; one of fewer positions
    in place of the last ones."""

    def fn(tensor: torch.Tensor, *, hook: HookPoint) -> torch.Tensor:
        if value.shape == tensor.shape[1:]:
            return value[None].to(tensor.dtype)
        tensor[0, -len(value) :] = value.to(tensor.dtype)
        return tensor

    return fn
