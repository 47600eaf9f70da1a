"""A GGUF model, in one file or several -> Checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import ModelConfig
from ..config_error import ConfigError
from ..weights.architectures import by_gguf_name, gguf_name
from ..weights.checkpoint import Checkpoint, CheckpointError, Format, StoredMatrix
from .gguf_config import config_from_gguf
from .gguf_format import GGUFFile, TensorInfo, read_tensor
from .gguf_rope import DIVISORS
from .gguf_shards import read_model
from .match_tensors import match_tensors


def open_gguf(path: Path) -> Checkpoint:
    """Reads header and tokenizer; weights are read when asked for.

    Args:
        path: The file, or any shard of a model in several.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, incomplete or not supported.
    """
    # Imported here: the tokenizers library is half of what `import bitlens` would take.
    from .gguf_tokenizer import tokenizer_from_gguf

    file = read_model(path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    try:
        config = config_from_gguf(file.metadata, shapes, _rope_divisors(file))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(
        config=config,
        tokenizer=tokenizer_from_gguf(file.metadata, config.d_vocab, str(path)),
        name=str(path),
        reader=_reader(file, config, shapes),
    )


@dataclass(frozen=True)
class GGUFReader:
    """Reads tensors by canonical name.

    Attributes:
        permuted: Matrices and vectors whose rows llama.cpp reordered -> their number of heads.
    """

    tensors: Mapping[str, TensorInfo]
    permuted: Mapping[str, int]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}

    def read(self, name: str) -> StoredMatrix:
        info = self.tensors[name]
        stored = read_tensor(info)
        if name not in self.permuted:
            return stored
        order = rotate_half_rows(info.shape[0], self.permuted[name])
        if len(info.shape) == 1:
            return StoredMatrix(stored.format, 1, stored.k, stored.data[:, order].contiguous())
        return StoredMatrix(stored.format, stored.n, stored.k, stored.data[order])


def rotate_half_rows(n_rows: int, n_heads: int) -> torch.Tensor:
    """Returns the place of each rotate-half row of q or k in a llama.cpp file, int64 [n_rows].

    llama.cpp's converter interleaves a head's two halves (rows 0, h/2, 1, h/2 + 1, ...) so that
    the pairs RoPE turns are neighbours. Rows of quantised blocks move as bytes.
    """
    pairs = torch.arange(n_rows, device="cpu").view(n_heads, -1, 2)
    return pairs.transpose(1, 2).reshape(-1)


def _rope_divisors(file: GGUFFile) -> dict[str, tuple[float, ...]]:
    found = {}
    for name in DIVISORS:
        if name in file.tensors:
            info = file.tensors[name]
            if len(info.shape) != 1 or info.format != Format.F32:
                raise CheckpointError(f"{file.path}: {name} is not a vector of type F32")
            found[name] = tuple(read_tensor(info).data[0].tolist())
    return found


def _reader(
    file: GGUFFile, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> GGUFReader:
    weights = {name: shape for name, shape in shapes.items() if name not in DIVISORS}
    names = match_tensors(str(file.path), config, weights, gguf_name)
    tensors = {name: file.tensors[source] for name, source in names.items()}
    for info in tensors.values():
        if len(info.shape) == 1 and info.format not in (Format.F32, Format.F16, Format.BF16):
            raise CheckpointError(
                f"{file.path}: vector {info.name!r} is stored as {info.format.name}; "
                "supported are F32, F16, BF16"
            )
    permuted: dict[str, int] = {}
    if by_gguf_name(file.metadata["general.architecture"]).gguf_permuted:
        heads = {"q": config.n_heads, "k": config.n_key_value_heads}
        for name in tensors:
            module = name.rpartition(".")[0]
            if module.endswith((".attn.q", ".attn.k")):
                permuted[name] = heads[module[-1]]
    return GGUFReader(tensors, permuted)
