"""The state of a run between two steps, and the weights at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..weights.atomic import write_tensors
from ..weights.trained import TrainedWeights
from .optimizer import AdamW

State = dict[str, Any]


class RunCheckpoint:
    """One file of a run: weights, perhaps moments, and what else it must know."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """`identity`: what the file must have been written under, such as config and model."""
        self._path = path
        self._identity = json.loads(json.dumps(dict(identity)))

    def write(self, weights: TrainedWeights, state: State, optimizer: AdamW | None = None) -> None:
        """Replaces the file. Raises OSError, the old one kept, where it does not fit."""
        tensors = dict(weights.values) | (optimizer.tensors() if optimizer is not None else {})
        metadata = {"identity": json.dumps(self._identity), "state": json.dumps(state)}
        write_tensors(self._path, tensors, {"format": "bitlens-training", **metadata})

    def read(self, weights: TrainedWeights, optimizer: AdamW | None = None) -> State | None:
        """Puts what the file holds in place and returns its state; None where there is no file.

        Raises ValueError for one that is damaged, or of another run, model or data.
        """
        if not self._path.exists():
            return None
        tensors, metadata = _read(self._path)
        found = json.loads(metadata.get("identity", "{}"))
        for name, value in self._identity.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{self._path} is of a run with {name} = {found.get(name)!r}, not {value!r}: "
                    "name another output folder, or resume=False to begin anew"
                )
        wanted = dict(weights.values) | (optimizer.tensors() if optimizer is not None else {})
        _restore(self._path, wanted, tensors)
        weights.rewrite()
        state: State = json.loads(metadata["state"])
        return state


def load_weights(weights: TrainedWeights, path: str | Path) -> None:
    """Puts the weights that a run has saved into a model loaded with `trainable`.

    Raises ValueError for a file that is damaged, or of another model.
    """
    tensors, _ = _read(Path(path))
    _restore(Path(path), weights.values, tensors)
    weights.rewrite()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to begin anew") from error


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
