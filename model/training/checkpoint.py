"""The state of a run between two steps, and the weights at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..weights.trained import TrainedWeights
from .optimizer import AdamW
from .state_file import State, StateFile, read_tensors


class RunCheckpoint:
    """One file of a run: weights, perhaps moments, and what else it must know."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """`identity`: what the file must have been written under, such as config and model."""
        self._path, self._file = path, StateFile(path, identity)

    def write(self, weights: TrainedWeights, state: State, optimizer: AdamW | None = None) -> None:
        """Replaces the file. Raises OSError, the old one kept, where it does not fit."""
        self._file.write(_tensors(weights, optimizer), state)

    def read(self, weights: TrainedWeights, optimizer: AdamW | None = None) -> State | None:
        """Puts what the file holds in place and returns its state; None where there is no file.

        Raises ValueError for one that is damaged, or of another run, model or data.
        """
        found = self._file.read()
        if found is None:
            return None
        tensors, state = found
        _restore(self._path, _tensors(weights, optimizer), tensors)
        weights.rewrite()
        return state


def load_weights(weights: TrainedWeights, path: str | Path) -> None:
    """Puts the weights that a run has saved into a model loaded with `trainable`.

    Raises ValueError for a file that is damaged, or of another model.
    """
    tensors, _ = read_tensors(Path(path))
    _restore(Path(path), weights.values, tensors)
    weights.rewrite()


def _tensors(weights: TrainedWeights, optimizer: AdamW | None) -> dict[str, torch.Tensor]:
    return dict(weights.values) | (optimizer.tensors() if optimizer is not None else {})


def _restore(
    path: Path, wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> None:
    for name, x in wanted.items():
        if name not in tensors or tensors[name].shape != x.shape:
            found = list(tensors[name].shape) if name in tensors else "none"
            raise ValueError(
                f"{path} is of another model: {name} is {list(x.shape)} here, {found} there"
            )
    for name, x in wanted.items():
        x.copy_(tensors[name])
