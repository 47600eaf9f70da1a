"""The state of a run between two steps, a file a layer: no copy of all of it is ever in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ....model.training.state_file import require_same_run
from ....model.weights.atomic import write_json, write_tensors
from ..parameters import Parameters
from .config import LayersTrainConfig

POINTER = "checkpoint.json"
_FOLDER = "checkpoint_{:07d}"


class LayersCheckpoint:
    """A run's checkpoint: a folder of tensors, and a file that names it once it is whole."""

    def __init__(self, folder: Path, config: LayersTrainConfig) -> None:
        self._folder = folder
        self._config = json.loads(json.dumps(config.to_dict()))

    def write(
        self, parts: Sequence[Parameters], more: Mapping[str, torch.Tensor], state: dict[str, Any]
    ) -> None:
        """Replaces the checkpoint. Raises OSError, the old one kept, where it does not fit."""
        name = _FOLDER.format(state["step"])
        scratch = self._folder / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for i, part in enumerate(parts):
            write_tensors(scratch / _file(i), part.tensors())
        write_tensors(scratch / "more.safetensors", dict(more))
        found = {"folder": name, "state": state, "config": self._config}
        write_json(self._folder / POINTER, found)
        self._remove_others(name)

    def read(
        self, parts: Sequence[Parameters]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Restores the parameters; returns the other tensors and the state. None without one.

        Raises ValueError for a checkpoint that is damaged, or of another config.
        """
        pointer = self._folder / POINTER
        if not pointer.exists():
            self._remove_others("")
            return None
        try:
            found = json.loads(pointer.read_text())
            folder, state, config = self._folder / found["folder"], found["state"], found["config"]
            require_same_run(self._folder, self._config, config)
            for i, part in enumerate(parts):
                part.restore(_read(folder / _file(i)), state["step"])
            more = _read(folder / "more.safetensors")
        except (SafetensorError, KeyError, json.JSONDecodeError, FileNotFoundError) as error:
            raise ValueError(
                f"{pointer} or what it names is damaged ({error}); remove it to begin anew"
            ) from error
        return more, state

    def remove(self) -> None:
        """Removes it, if it is there."""
        (self._folder / POINTER).unlink(missing_ok=True)
        self._remove_others("")

    def _remove_others(self, kept: str) -> None:
        for each in self._folder.glob(_FOLDER.format(0).rstrip("0") + "*"):
            if each.name != kept:
                shutil.rmtree(each)


def _file(i: int) -> str:
    return f"part_{i:03d}.safetensors"


def _read(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
