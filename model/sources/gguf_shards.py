"""A GGUF model cut into several files (`llama-gguf-split`, gguf's writer) -> one header.

The first shard holds the metadata, every shard a part of the tensors, NAME-00001-of-00003.gguf
and so on. Which files belong together follows from the name that the user gave and the counts that
the files state, never from a path in a file.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from ..weights.checkpoint import CheckpointError
from .gguf_format import GGUFFile, TensorInfo, read_header

_NO, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)
_ARCHITECTURE = "general.architecture"


def read_model(path: Path) -> GGUFFile:
    """The header of a whole model; `path` is its only file or any one of its shards.

    Raises:
        CheckpointError: a file is damaged, or a shard is missing, of another model or renamed.
        OSError: from the system.
    """
    file = read_header(path)
    if _COUNT not in file.metadata:
        return file
    count = _integer(file, _COUNT, 0)
    if count <= 1:  # 0: what `llama-gguf-split --merge` wrote
        return file
    paths = _shard_paths(file, count)
    shards = [file if shard == path else _read_shard(shard, file) for shard in paths]
    for number, shard in enumerate(shards):
        _require_belongs(shard, number, shards[0])
    return dataclasses.replace(shards[0], tensors=_merged(shards))


def _shard_paths(file: GGUFFile, count: int) -> list[Path]:
    """Where all shards should be: beside the one that was named."""
    number = _integer(file, _NO, 0) + 1
    if number > count:
        raise CheckpointError(f"{file.path}: {_NO} = {number - 1}, but {_COUNT} = {count}")
    named = _NAME.fullmatch(file.path.name)
    if named is None or (int(named[2]), int(named[3])) != (number, count):
        raise CheckpointError(
            f"{file.path}: this is shard {number} of {count}, so its name must end in "
            f"-{number:05d}-of-{count:05d}.gguf; rename it, or join the shards with "
            "`llama-gguf-split --merge`"
        )
    stem = named[1]
    return [file.path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


def _read_shard(path: Path, asked: GGUFFile) -> GGUFFile:
    if not path.is_file():
        raise CheckpointError(f"{path}: this shard of the model is missing beside {asked.path}")
    return read_header(path)


def _require_belongs(shard: GGUFFile, number: int, first: GGUFFile) -> None:
    for key, expected in (
        (_NO, number),
        (_COUNT, first.metadata[_COUNT]),
        (_TENSORS, _integer(first, _TENSORS, 0)),
    ):
        if _integer(shard, key, 0) != expected:
            raise CheckpointError(
                f"{shard.path}: {key} = {shard.metadata[key]}, but {first.path} asks for {expected}"
            )
    if number == 0:
        return
    architecture = first.metadata.get(_ARCHITECTURE)
    if shard.metadata.get(_ARCHITECTURE, architecture) != architecture:
        raise CheckpointError(f"{shard.path}: a shard of another architecture than {first.path}")
    for key in shard.metadata:
        if not key.startswith(("split.", "general.")):
            raise CheckpointError(
                f"{shard.path}: metadata key {key!r}; only the first shard may describe the model"
            )


def _merged(shards: list[GGUFFile]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in shard.tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{shard.path}: tensor {name!r} is in {tensors[name].path.name} too"
                )
            tensors[name] = info
    expected = shards[0].metadata[_TENSORS]
    if len(tensors) != expected:
        raise CheckpointError(
            f"{shards[0].path}: {_TENSORS} = {expected}, but the shards hold {len(tensors)} tensors"
        )
    return tensors


def _integer(file: GGUFFile, key: str, least: int) -> int:
    value = file.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CheckpointError(f"{file.path}: {key} = {value!r}: expected {least} or more")
    return value
