"""A dictionary's files, read without trust: every failure names the file and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ....model.sources.json_file import read_object
from ....model.weights.checkpoint import CheckpointError
from ..config import DictionaryError

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")

Tensors = dict[str, torch.Tensor]


def is_pickle(path: Path) -> bool:
    """Returns whether a file's name is that of a pickle."""
    return path.suffix in _PICKLES


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object. Raises DictionaryError for any other."""
    try:
        return read_object(path)
    except CheckpointError as error:
        raise DictionaryError(str(error)) from error


def read_tensors(path: Path) -> Tensors:
    """Reads every tensor of a safetensors file. Raises DictionaryError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DictionaryError(f"{path.name}: {error}") from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a safetensors file's tensors. Raises DictionaryError for a damaged
    one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DictionaryError(f"{path.name}: {error}") from error


def checked(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: str
) -> Tensors:
    """Returns the tensors of these names and shapes, and no others.

    Raises DictionaryError for one that is missing, of another shape, or of no use.
    """
    if missing := shapes.keys() - tensors.keys():
        raise DictionaryError(f"{where} has no tensor {min(missing)!r}")
    if extra := tensors.keys() - shapes.keys():
        raise DictionaryError(f"{where} holds {min(extra)!r}, which nothing here has a use for")
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            raise DictionaryError(f"{name}: expected shape {list(shape)}, found {list(found)}")
    return {name: tensors[name] for name in shapes}


def matrix_shape(tensors: Mapping[str, torch.Tensor], name: str, where: str) -> tuple[int, int]:
    """Returns the shape of a matrix. Raises DictionaryError where there is none of that name."""
    found = tensors.get(name)
    if found is None or found.ndim != 2:
        raise DictionaryError(f"{where} has no matrix {name!r}")
    return found.shape[0], found.shape[1]
