"""The GGUF container, versions 2 and 3: header, metadata, tensor table. No model knowledge.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Nothing the file claims is
believed before it is checked against the file's size, so a damaged or hostile file costs an
exception and no memory.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..weights.checkpoint import BLOCKS, DENSE_DTYPES, CheckpointError, Format, StoredMatrix

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ARRAY_DEPTH = 8

# Metadata value types by their number in the file.
_SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Tensor types by their number in the file (ggml_type).
FORMATS = {
    0: Format.F32,
    1: Format.F16,
    2: Format.Q4_0,
    3: Format.Q4_1,
    6: Format.Q5_0,
    7: Format.Q5_1,
    8: Format.Q8_0,
    10: Format.Q2_K,
    11: Format.Q3_K,
    12: Format.Q4_K,
    13: Format.Q5_K,
    14: Format.Q6_K,
    16: Format.IQ2_XXS,
    17: Format.IQ2_XS,
    18: Format.IQ3_XXS,
    19: Format.IQ1_S,
    20: Format.IQ4_NL,
    21: Format.IQ3_S,
    22: Format.IQ2_S,
    23: Format.IQ4_XS,
    29: Format.IQ1_M,
    30: Format.BF16,
    34: Format.TQ1_0,
    35: Format.TQ2_0,
}
# Names for the error message only.
_OTHER_TYPES = {9: "Q8_1", 15: "Q8_K", 28: "F64", 39: "MXFP4", 40: "NVFP4"}


@dataclass(frozen=True)
class TensorInfo:
    """A row of the tensor table.

    Attributes:
        path: The file that holds the data.
        shape: Outermost dimension first (GGUF lists it last).
        offset: From the start of the file.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    format: Format
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class GGUFFile:
    """A parsed header. `metadata` holds str, bool, int, float, numpy arrays and lists."""

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GGUFFile:
    """Parses everything but the tensor data. Raises CheckpointError, or OSError from the system."""
    with path.open("rb") as file:
        cursor = _Cursor(file, path)
        version = _read_version(cursor)
        n_tensors, n_keys = cursor.unpack("<QQ")
        cursor.require_room(n_tensors, 32, "tensors")
        cursor.require_room(n_keys, 13, "metadata keys")
        metadata = _read_metadata(cursor, n_keys)
        alignment = _alignment(cursor, metadata)
        table = [_read_tensor_info(cursor) for _ in range(n_tensors)]
        data_start = -(-cursor.position // alignment) * alignment
        tensors = _place(cursor, table, data_start, alignment)
    return GGUFFile(path, version, metadata, tensors)


def read_tensor(info: TensorInfo) -> StoredMatrix:
    """Reads one tensor of at most two dimensions (a vector as one row) without mapping the file."""
    n, k = (1, *info.shape)[-2:]
    raw = torch.empty(info.n_bytes, dtype=torch.uint8, device="cpu")
    buffer = memoryview(raw.numpy().data)
    with info.path.open("rb", buffering=0) as file:
        file.seek(info.offset)
        filled = 0
        while filled < info.n_bytes:
            n_read = file.readinto(buffer[filled:])
            if not n_read:
                raise CheckpointError(
                    f"{info.path}: tensor {info.name!r} ends early; was the file cut?"
                )
            filled += n_read
    if info.format in DENSE_DTYPES:
        return StoredMatrix(info.format, n, k, raw.view(DENSE_DTYPES[info.format]).view(n, k))
    return StoredMatrix(info.format, n, k, raw.view(n, -1))


class _Cursor:
    """Reads forward through the file, never past its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.size = file.seek(0, 2)
        self.position = file.seek(0)

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem} (at byte {self.position})")

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > self.size - self.position:
            raise self.error(f"the file ends early: {n_bytes} more bytes expected")
        data = self._file.read(n_bytes)
        if len(data) != n_bytes:
            raise self.error("the file shrank while it was read")
        self.position += n_bytes
        return data

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self) -> str:
        data = self.take(self.u64())
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"a string is not UTF-8: {error}") from None

    def require_room(self, count: int, least_bytes: int, what: str) -> None:
        if count * least_bytes > self.size - self.position:
            raise self.error(f"{count} {what} announced, more than the file can hold")


def _read_version(cursor: _Cursor) -> int:
    magic = cursor.take(4)
    if magic != MAGIC:
        raise cursor.error(f"not a GGUF file: it starts with {magic!r}")
    version = cursor.u32()
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "big"), "little") in (1, *VERSIONS):
        raise cursor.error("big-endian GGUF is not supported; convert it to little-endian")
    raise cursor.error(f"GGUF version {version} is not supported; supported are 2 and 3")


def _read_metadata(cursor: _Cursor, n_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.string()
        if key in metadata:
            raise cursor.error(f"metadata key {key!r} appears twice")
        try:
            metadata[key] = _read_value(cursor, cursor.u32(), 0)
        except CheckpointError as error:
            raise CheckpointError(f"{error}, in metadata key {key!r}") from None
    return metadata


def _read_value(cursor: _Cursor, kind: int, depth: int) -> Any:
    if kind in _SCALARS:
        dtype = _SCALARS[kind]
        return np.frombuffer(cursor.take(dtype.itemsize), dtype)[0].item()
    if kind == _STRING:
        return cursor.string()
    if kind == _BOOL:
        return _boolean(cursor)
    if kind == _ARRAY:
        return _read_array(cursor, depth + 1)
    raise cursor.error(f"unknown metadata value type {kind}")


def _read_array(cursor: _Cursor, depth: int) -> Any:
    if depth > MAX_ARRAY_DEPTH:
        raise cursor.error(f"arrays nested more than {MAX_ARRAY_DEPTH} deep")
    kind, count = cursor.unpack("<IQ")
    if kind in _SCALARS:
        dtype = _SCALARS[kind]
        return np.frombuffer(cursor.take(count * dtype.itemsize), dtype)
    if kind == _STRING:
        cursor.require_room(count, 8, "strings")
        return [cursor.string() for _ in range(count)]
    if kind == _BOOL:
        cursor.require_room(count, 1, "booleans")
        return [_boolean(cursor) for _ in range(count)]
    if kind == _ARRAY:
        cursor.require_room(count, 12, "arrays")
        return [_read_array(cursor, depth + 1) for _ in range(count)]
    raise cursor.error(f"unknown metadata array type {kind}")


def _boolean(cursor: _Cursor) -> bool:
    value = cursor.take(1)[0]
    if value > 1:
        raise cursor.error(f"a boolean holds {value}")
    return bool(value)


def _alignment(cursor: _Cursor, metadata: dict[str, Any]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or value < 8 or value & (value - 1):
        raise cursor.error(f"general.alignment = {value!r}: expected a power of two from 8 on")
    return value


def _read_tensor_info(cursor: _Cursor) -> TensorInfo:
    name = cursor.string()
    n_dims = cursor.u32()
    if not 1 <= n_dims <= 4:
        raise cursor.error(f"tensor {name!r} has {n_dims} dimensions; expected 1 to 4")
    shape = tuple(reversed(cursor.unpack(f"<{n_dims}Q")))
    kind, offset = cursor.unpack("<IQ")
    if kind not in FORMATS:
        supported = ", ".join(f.name for f in FORMATS.values())
        raise cursor.error(
            f"tensor {name!r} has type {_OTHER_TYPES.get(kind, kind)}; supported are {supported}"
        )
    format = FORMATS[kind]
    if min(shape) == 0 or math.prod(shape) >= 1 << 62:
        raise cursor.error(f"tensor {name!r} has impossible shape {list(shape)}")
    n_bytes = _n_bytes(cursor, name, shape, format)
    return TensorInfo(cursor.path, name, shape, format, offset, n_bytes)


def _n_bytes(cursor: _Cursor, name: str, shape: tuple[int, ...], format: Format) -> int:
    if format in DENSE_DTYPES:
        return math.prod(shape) * DENSE_DTYPES[format].itemsize
    layout = BLOCKS[format]
    if shape[-1] % layout.weights:
        raise cursor.error(
            f"tensor {name!r}: {format.name} rows hold whole blocks of {layout.weights}, "
            f"got {shape[-1]}"
        )
    return math.prod(shape) // layout.weights * layout.bytes


def _place(
    cursor: _Cursor, table: list[TensorInfo], data_start: int, alignment: int
) -> dict[str, TensorInfo]:
    """Turns offsets into file positions and checks that tensors lie apart and inside the file."""
    placed: dict[str, TensorInfo] = {}
    end, previous = data_start, ""
    for info in sorted(table, key=lambda t: t.offset):
        if info.name in placed:
            raise cursor.error(f"tensor {info.name!r} appears twice")
        if info.offset % alignment:
            raise cursor.error(f"tensor {info.name!r} is not aligned to {alignment} bytes")
        start = data_start + info.offset
        if start < end:
            raise cursor.error(f"tensor {info.name!r} overlaps {previous!r}")
        end, previous = start + info.n_bytes, info.name
        if end > cursor.size:
            raise cursor.error(
                f"tensor {info.name!r} ends at byte {end}, the file at {cursor.size}; is it cut?"
            )
        placed[info.name] = dataclasses.replace(info, offset=start)
    return placed
