"""Weight matrices as the kernels read them: panels of 32 outputs, in the narrowest exact format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ... import _core
from ..weights.checkpoint import DENSE_DTYPES, Format, StoredMatrix
from .weight_pages import WeightPages


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight matrix [n, k] in panels (docs/numerics.md, storage).

    Attributes:
        data: uint8 [bytes], 64-byte aligned.
    """

    format: Format
    n: int
    k: int
    data: torch.Tensor

    @property
    def ptr(self) -> int:
        return self.data.data_ptr()

    def __deepcopy__(self, memo: object) -> PackedWeight:
        """Returns itself: nothing writes into panels."""
        return self

    def rows(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows start..stop-1 of the matrix, fp32 [rows, k] on the CPU, widened as the kernels widen
        them."""
        stop = self.n if stop is None else stop
        if not 0 <= start <= stop <= self.n:
            raise IndexError(f"rows {start}:{stop} of a matrix with {self.n}")
        out = torch.empty(stop - start, self.k, dtype=torch.float32, device="cpu")
        data = self.data.cpu()
        _core.unpack_rows(self.format, data, self.n, self.k, start, stop - start, out)
        return out

    @cached_property
    def transposed(self) -> PackedWeight:
        """W^T [k, n] in the narrowest exact dense format, kept once a gradient has asked for it."""
        with torch.inference_mode(False):
            turned = StoredMatrix(Format.F32, self.k, self.n, self.rows().T.contiguous())
            packed = pack(turned, narrowest(turned))
            return replace(packed, data=packed.data.to(self.data.device))


def pack(
    matrix: StoredMatrix,
    format: Format | None = None,
    *,
    rounded: bool = False,
    pages: WeightPages | None = None,
) -> PackedWeight:
    """Arranges a matrix into panels, some rows at a time.

    Args:
        format: What the panels hold: the matrix's own format, the default, or a dense one that
            holds its values exactly, as `narrowest` finds it.
        rounded: Every weight is rounded to bf16 first, to nearest even.
        pages: Where the panels go, beside a model's other weights. Default: memory of their own.
    """
    format = matrix.format if format is None else format
    n, k = matrix.n, matrix.k
    size = _core.packed_bytes(format, n, k)
    data = torch.empty(size, dtype=torch.uint8, device="cpu") if pages is None else pages.take(size)
    if format is matrix.format and not rounded:
        _core.pack(format, matrix.data, n, k, data)
        return PackedWeight(format, n, k, data)
    for start, rows in matrix.chunks():
        values = rows.to(torch.bfloat16) if rounded else rows
        values = values.to(DENSE_DTYPES[format]).contiguous()
        panels = data[_core.packed_bytes(format, start, k) :]
        _core.pack(format, values, len(values), k, panels)
    return PackedWeight(format, n, k, data)


def narrowest(matrix: StoredMatrix) -> Format:
    """The narrowest format of the kernels that holds every weight exactly.

    Blocks that kernels read stay as they are: they are narrower than any dense format.
    """
    if matrix.format.in_kernels and matrix.format is not Format.F32:
        return matrix.format
    for format in (Format.BF16, Format.F16):
        # A matrix that does not fit nearly always shows it in its first row.
        if _exact(matrix.rows(0, 1), format) and all(_exact(w, format) for _, w in matrix.chunks()):
            return format
    return Format.F32


def _exact(w: torch.Tensor, format: Format) -> bool:
    narrowed = w.to(DENSE_DTYPES[format]).float()
    return torch.equal(narrowed.view(torch.int32), w.view(torch.int32))
