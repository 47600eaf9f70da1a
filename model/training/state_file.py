"""Tensors and state of a run, in one file that is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..weights.atomic import write_tensors

State = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class StateFile:
    """One file of a run."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """`identity`: what the file must have been written under, such as the run's config."""
        self._path = path
        self._identity = json.loads(json.dumps(dict(identity)))

    def write(self, tensors: Tensors, state: State) -> None:
        """Replaces the file. Raises OSError, the old one kept, where it does not fit."""
        metadata = {"state": json.dumps(state), "config": json.dumps(self._identity)}
        write_tensors(self._path, tensors, metadata)

    def read(self) -> tuple[Tensors, State] | None:
        """Returns tensors and state; None where there is no file.

        Raises ValueError for one that is damaged, or of another run.
        """
        if not self._path.exists():
            return None
        tensors, metadata = read_tensors(self._path)
        try:
            found, state = json.loads(metadata["config"]), json.loads(metadata["state"])
        except (KeyError, ValueError) as error:
            raise _damaged(self._path, error) from error
        require_same_run(self._path, self._identity, found)
        return tensors, state

    def remove(self) -> None:
        """Removes the file, if it is there."""
        self._path.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Returns the tensors and the metadata of a file. Raises ValueError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, error) from error


def require_same_run(where: Path, identity: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises ValueError naming what a run's files were written under, where that is another."""
    for name, value in identity.items():
        if found.get(name) != value:
            raise ValueError(
                f"{where} is of a run with {name} = {found.get(name)!r}, not {value!r}: name "
                "another output folder, or resume=False to begin anew"
            )


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); remove it to begin anew")
