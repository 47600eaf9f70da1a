"""The CUDA kernels of sparse dictionaries on tensors, unchecked: what
interp/dictionaries/kernels.py has on the CPU, for tensors on a GPU.

Shapes: N rows, F features, k entries a row, d width, E entries in all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..packed import PackedWeight
from .kernels import CudaKernels

Tensors = tuple[torch.Tensor, ...]


class CudaDictionaryKernels:
    """Operations of dictionaries on the device of some kernels."""

    def __init__(self, kernels: CudaKernels) -> None:
        self.library = kernels.library
        self._kernels = kernels

    def product(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns fp32 [N, F]: `linear`."""
        return self._kernels.linear(x, weight.data, weight.format, weight.n, bias, torch.float32)

    def top_k(self, x: torch.Tensor, k: int) -> Tensors:
        """Returns values and indices [N, k]."""
        x = x.contiguous()
        rows, n = x.shape
        values, indices = self._empty((rows, k)), self._empty((rows, k), torch.int32)
        self.library.launch("top_k", x, rows, n, k, values, indices)
        return values, indices

    def encode_top_k(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, k: int
    ) -> Tensors:
        """Returns `top_k` of the product, of which few rows are there at a time."""
        parts = [self.top_k(self.product(rows, weight, bias), k) for rows in self._few(x, weight)]
        return tuple(torch.cat(each) for each in zip(*parts, strict=True))

    def encode_above(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, thresholds: torch.Tensor
    ) -> Tensors:
        """Returns starts [N + 1], indices [E] and values [E] of what is above thresholds [F] in the
        product, of which few rows are there at a time. Waits for the device."""
        parts = [
            self._above(self.product(rows, weight, bias), thresholds)
            for rows in self._few(x, weight)
        ]
        counts, indices, values = (torch.cat(each) for each in zip(*parts, strict=True))
        starts = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(counts, 0, out=starts[1:])
        return starts, indices, values

    def _above(self, scores: torch.Tensor, thresholds: torch.Tensor) -> Tensors:
        rows, n = scores.shape
        counts = self._empty((rows,), torch.int64)
        self.library.launch("above_count", scores, thresholds, rows, n, counts)
        starts = torch.cumsum(counts, 0) - counts
        entries = int(counts.sum())
        values, indices = self._empty((entries,)), self._empty((entries,), torch.int32)
        self.library.launch("above_write", scores, thresholds, rows, n, starts, values, indices)
        return counts, indices, values

    def weighted_sums(
        self,
        coefs: torch.Tensor,
        indices: torch.Tensor,
        starts: torch.Tensor,
        table: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, d = len(starts) - 1, table.shape[1]
        out = self._empty((rows, d))
        self.library.launch("weighted_sums", coefs, indices, starts, rows, table, d, bias, out)
        return out

    def gathered_dots(
        self, x: torch.Tensor, indices: torch.Tensor, starts: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        entries, d = indices.numel(), table.shape[1]
        out = self._empty((entries,))
        self.library.launch(
            "gathered_dots", x, indices, starts, len(starts) - 1, entries, table, d, out
        )
        return out

    def sums_of_squares(self, x: torch.Tensor) -> torch.Tensor:
        out = self._empty((len(x),))
        self.library.launch("sums_of_squares", x, len(x), x.shape[1], out)
        return out

    def unit_rows_(self, w: torch.Tensor) -> None:
        self.library.launch("unit_rows", w, len(w), w.shape[1])

    def _few(self, x: torch.Tensor, weight: PackedWeight) -> Iterator[torch.Tensor]:
        """The rows, as many at a time as have products that fit into the kernels' workspace."""
        rows = max(1, self._kernels.workspace // (4 * weight.n))
        return iter(torch.split(x, rows))

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self._kernels.empty(shape, dtype)
