"""The state of a run between two steps, in one file that is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...model.weights.atomic import write_tensors
from .config import TrainConfig

CHECKPOINT = "checkpoint.safetensors"


class Checkpoint:
    """A run's checkpoint file."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._path = folder / CHECKPOINT
        self._config = json.loads(json.dumps(config.to_dict()))

    def write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Replaces the checkpoint. Raises OSError, the old one kept, where it does not fit."""
        metadata = {"state": json.dumps(state), "config": json.dumps(self._config)}
        write_tensors(self._path, tensors, metadata)

    def read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Returns tensors and state; None where there is no checkpoint.

        Raises ValueError for one that is damaged, or of another config.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found, state = json.loads(metadata["config"]), json.loads(metadata["state"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self._path} is damaged ({error}); remove it to begin anew"
            ) from error
        for name, value in self._config.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{self._path} is of a run with {name} = {found.get(name)!r}, not {value!r}: "
                    "name another output folder, or resume=False to begin anew"
                )
        return tensors, state

    def remove(self) -> None:
        """Removes the file, if it is there."""
        self._path.unlink(missing_ok=True)
