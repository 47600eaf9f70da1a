"""A Hugging Face model directory (config.json, safetensors, tokenizer.json) -> Checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..config import ModelConfig
from ..config_error import ConfigError
from ..weights.architectures import huggingface_name
from ..weights.checkpoint import DENSE_DTYPES, Checkpoint, CheckpointError, Format, StoredMatrix
from .huggingface_config import config_from_huggingface
from .huggingface_names import meaningless, plain_names, settle_head
from .json_file import read_object
from .match_tensors import match_tensors

_FORMATS = {format.name: format for format in DENSE_DTYPES}
PICKLES = ("pytorch_model*.bin", "*.pth", "*.pt", "consolidated*.pth")
CONVERT = (
    "bitlens reads safetensors only. Convert a model you trust: "
    "AutoModelForCausalLM.from_pretrained(source).save_pretrained(new_path)"
)
INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_SUFFIX = ".safetensors"
_ROWS = 1024  # of two matrices that are compared, at a time


def open_directory(path: Path) -> Checkpoint:
    """Reads configs, tokenizer and safetensors headers; weights are read when asked for.

    Raises:
        CheckpointError: something is damaged, incomplete or not supported.
    """
    # Imported here: the tokenizers library is half of what `import bitlens` would take.
    from .huggingface_tokenizer import tokenizer_from_directory

    config = read_config(path)
    found = plain_names(_find_tensors(path), config, str(path))
    found, config = settle_head(found, config, _equal, str(path))
    names = match_tensors(
        str(path),
        config,
        {name: place.shape for name, place in found.items()},
        huggingface_name,
        ignored=meaningless(config),
    )
    tensors = {name: found[source] for name, source in names.items()}
    return Checkpoint(
        config=config,
        tokenizer=tokenizer_from_directory(path, config.d_vocab),
        name=str(path),
        reader=SafetensorsReader(tensors),
    )


def read_config(path: Path) -> ModelConfig:
    """The directory's config.json. Raises CheckpointError where it is absent or not supported."""
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path}: no config.json; a Hugging Face model directory has one")
    try:
        return config_from_huggingface(read_object(file))
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error


def weight_files(path: Path) -> list[str]:
    """Returns the names of the files that hold the weights: the single one, or the index's.

    Where a directory has both, the single one is the model, as in transformers.

    Raises:
        CheckpointError: the index is damaged, or names a file outside the directory or a pickle.
    """
    index_file = path / INDEX
    if (path / SINGLE_FILE).is_file() or not index_file.exists():
        return [SINGLE_FILE]
    return _shards(index_file, _weight_map(index_file))


@dataclass(frozen=True)
class TensorPlace:
    """The place of a tensor, from its file's header."""

    file: Path
    name: str
    shape: tuple[int, ...]
    format: Format


@dataclass(frozen=True)
class SafetensorsReader:
    """Reads tensors by canonical name."""

    tensors: Mapping[str, TensorPlace]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self.tensors.items()}

    def read(self, name: str) -> StoredMatrix:
        place = self.tensors[name]
        n, k = (1, *place.shape)[-2:]
        # The library maps the file: closing it after each tensor, with a copy in hand, keeps the
        # pages of tensors already read from counting as memory in use.
        try:
            with safe_open(place.file, framework="pt") as file:
                data = file.get_tensor(place.name).clone().view(n, k)
        except SafetensorError as error:
            raise CheckpointError(f"{place.file}: tensor {place.name!r}: {error}") from error
        return StoredMatrix(place.format, n, k, data)


def _find_tensors(path: Path) -> dict[str, TensorPlace]:
    """Returns every tensor of the directory, from the single file or else by the index."""
    index_file = path / INDEX
    if (path / SINGLE_FILE).is_file() or not index_file.exists():
        return _tensors_of(_single_file(path))
    weight_map = _weight_map(index_file)
    files = [_shard_path(index_file, shard) for shard in _shards(index_file, weight_map)]
    shards = {file.name: _tensors_of(file) for file in files}
    places: dict[str, TensorPlace] = {}
    for name, shard in weight_map.items():
        if name not in shards[str(shard)]:
            raise CheckpointError(f"{index_file}: tensor {name!r} is not in {shard}")
        places[name] = shards[str(shard)][name]
    for shard, tensors in shards.items():
        unlisted = sorted(set(tensors) - set(places))
        if unlisted:
            raise CheckpointError(f"{index_file}: does not list {unlisted[0]!r} of {shard}")
    return places


def _equal(a: TensorPlace, b: TensorPlace) -> bool:
    """Says whether two matrices hold the same values, reading some rows of each at a time."""
    if a.shape != b.shape or len(a.shape) != 2:
        return False
    try:
        with safe_open(a.file, framework="pt") as first, safe_open(b.file, framework="pt") as other:
            x, y = first.get_slice(a.name), other.get_slice(b.name)
            starts = range(0, a.shape[0], _ROWS)
            parts = ((x[i : i + _ROWS].float(), y[i : i + _ROWS].float()) for i in starts)
            return all(torch.equal(left, right) for left, right in parts)
    except SafetensorError as error:
        raise CheckpointError(f"{a.file}: tensor {a.name!r}: {error}") from error


def _weight_map(index_file: Path) -> dict[str, Any]:
    weight_map = read_object(index_file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_file}: expected an object 'weight_map' of tensors")
    return weight_map


def _shards(index_file: Path, weight_map: Mapping[str, Any]) -> list[str]:
    """The files it lists, each once: a shard lies beside its index and nowhere else, and is no
    pickle."""
    shards = list(dict.fromkeys(map(str, weight_map.values())))
    for shard in shards:
        if Path(shard).name != shard or {"\\", "\0"} & set(shard) or Path(shard).suffix != _SUFFIX:
            raise CheckpointError(
                f"{index_file}: shard {shard!r} is not a plain file name ending in {_SUFFIX}"
            )
    return shards


def _shard_path(index_file: Path, shard: str) -> Path:
    file = index_file.parent / shard
    try:
        there = file.is_file()
    except OSError:  # no name a file system takes
        there = False
    if not there:
        raise CheckpointError(f"{index_file}: shard {shard!r} is missing")
    return file


def _single_file(path: Path) -> Path:
    file = path / SINGLE_FILE
    if file.is_file():
        return file
    pickles = sorted(match.name for pattern in PICKLES for match in path.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{path}: {pickles[0]} is a pickle, which can run code when read. {CONVERT}"
        )
    ggufs = sorted(match.name for match in path.glob("*.gguf"))
    hint = f"; to load {ggufs[0]}, pass its own path" if ggufs else ""
    raise CheckpointError(f"{path}: no {SINGLE_FILE} or {INDEX}{hint}")


def _tensors_of(file: Path) -> dict[str, TensorPlace]:
    places: dict[str, TensorPlace] = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                header = opened.get_slice(name)
                dtype, shape = header.get_dtype(), tuple(header.get_shape())
                if dtype not in _FORMATS:
                    raise CheckpointError(
                        f"{file}: tensor {name!r} has dtype {dtype}; "
                        f"supported are {', '.join(_FORMATS)}"
                    )
                places[name] = TensorPlace(file, name, shape, _FORMATS[dtype])
    except SafetensorError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return places
