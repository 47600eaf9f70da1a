"""Arrays of a .npz file, by their bytes alone: no pickle, and nothing larger than it says."""

from __future__ import annotations

import ast
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ..config import DictionaryError

_MAGIC = b"\x93NUMPY"
_KINDS = {"<f4": np.float32, "<f2": np.float16, "<f8": np.float64}
_MAX_HEADER = 1 << 16
_MAX_BYTES = 1 << 36


def read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Reads the arrays of a .npz file, fp32 or fp16; fp64 is rounded to fp32.

    Raises DictionaryError for a damaged file, and for arrays of objects, which are pickles.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _array(archive, info)
                for info in archive.infolist()
            }
    except DictionaryError as error:
        raise DictionaryError(f"{path.name}: {error}") from error
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError,
        ValueError, KeyError, IndexError, OverflowError, struct.error, MemoryError,
    ) as error:  # fmt: skip
        raise DictionaryError(f"{path.name}: no sound .npz file: {error}") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> torch.Tensor:
    name = info.filename
    with archive.open(info) as file:
        head = file.read(8)
        if len(head) < 8 or head[:6] != _MAGIC or head[6] not in (1, 2, 3):
            raise DictionaryError(f"{name} is no array of numpy")
        code = "<H" if head[6] == 1 else "<I"
        (size,) = struct.unpack(code, file.read(struct.calcsize(code)))
        if size > _MAX_HEADER:
            raise DictionaryError(f"{name}: a header of {size} bytes")
        kind, shape = _header(name, file.read(size))
        count = math.prod(shape)
        n_bytes = count * np.dtype(kind).itemsize
        if n_bytes > min(info.file_size - file.tell(), _MAX_BYTES):
            raise DictionaryError(f"{name}: shape {list(shape)} needs more bytes than there are")
        data = file.read(n_bytes + 1)
    if len(data) != n_bytes:
        raise DictionaryError(f"{name}: {len(data)} bytes for shape {list(shape)}")
    array = np.frombuffer(data, dtype=np.dtype(kind), count=count).reshape(shape)
    return torch.from_numpy(array.astype(np.float16 if kind == "<f2" else np.float32))


def _header(name: str, text: bytes) -> tuple[str, tuple[int, ...]]:
    try:
        found = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DictionaryError(f"{name}: its header is no description of an array") from error
    if not isinstance(found, dict) or found.keys() != {"descr", "fortran_order", "shape"}:
        raise DictionaryError(f"{name}: its header is no description of an array")
    kind, shape = found["descr"], found["shape"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise DictionaryError(f"{name}: values of type {str(kind)[:40]!r}; floats are read")
    if found["fortran_order"] is not False:
        raise DictionaryError(f"{name} is stored column by column: save it with numpy.savez again")
    whole = isinstance(shape, tuple) and all(type(n) is int and 0 <= n <= 1 << 40 for n in shape)
    if not whole or len(shape) > 8:
        raise DictionaryError(f"{name}: shape {str(shape)[:40]}")
    return kind, shape
