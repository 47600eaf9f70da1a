"""A matrix as a small PNG (RFC 2083), blue on nothing, so that it lies well on light and dark."""

from __future__ import annotations

import struct
import zlib

import torch

_BLUE = (62, 116, 230)


def png(values: torch.Tensor) -> bytes:
    """Returns a picture of values from 0 to 1 [R, C]: a pixel each, its opacity the value."""
    n_rows, n_columns = values.shape
    opacity = (values.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = torch.tensor(_BLUE, dtype=torch.uint8, device="cpu").expand(n_rows, n_columns, 3)
    rgba = torch.cat([pixels, opacity[:, :, None]], 2).flatten(1)
    lines = torch.cat(
        [torch.zeros(n_rows, 1, dtype=torch.uint8, device="cpu"), rgba], 1
    )  # filter 0
    header = struct.pack(">IIBBBBB", n_columns, n_rows, 8, 6, 0, 0, 0)
    data = zlib.compress(bytes(lines.flatten().tolist()), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
