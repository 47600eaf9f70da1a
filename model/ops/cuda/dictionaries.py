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

BLOCKS = 264
"""Thread blocks that an encoding has, where it has enough features: two a multiprocessor."""
ROOM = 64
"""Candidates of a range of features beyond the k that are sought; of what is above thresholds, all
that are expected."""
SPARSE = 4
"""Features of a range, at least, for each of its candidates."""
ENTRY = 8
"""Bytes of a candidate, a value and its index."""


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
        """Returns `top_k` of the product, which is nowhere whole: one launch, of as many rows at a
        time as have candidates that fit into the kernels' workspace."""
        ranges = self._ranges(len(x), weight.n, k + ROOM)
        parts = [
            self._top_k_of(rows, weight, bias, k, ranges)
            for rows in self._few(x, ranges * (k + ROOM))
        ]
        return tuple(torch.cat(each) for each in zip(*parts, strict=True))

    def encode_above(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, thresholds: torch.Tensor
    ) -> Tensors:
        """Returns starts [N + 1], indices [E] and values [E] of what is above thresholds [F] in the
        product, which is nowhere whole. Waits for the device."""
        parts = list(self._above(x, weight, bias, thresholds, ROOM))
        counts, entries = (torch.cat(each) for each in zip(*parts, strict=True))
        starts = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(counts, 0, out=starts[1:])
        values, indices = entries.unbind(1)
        return starts, indices.contiguous(), values.contiguous().view(torch.float32)

    def _top_k_of(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, k: int, ranges: int
    ) -> Tensors:
        rows, capacity = len(x), k + ROOM
        values, indices = self._empty((rows, k)), self._empty((rows, k), torch.int32)
        tickets = torch.zeros(rows, dtype=torch.int32, device=x.device)
        self.library.launch(
            "encode_top_k", x, rows, x.shape[1], weight.data, int(weight.format), weight.n, bias, k,
            ranges, capacity, self._empty((rows, ranges, capacity, 2), torch.int32),
            self._empty((rows, ranges), torch.int32), tickets, values, indices,
        )  # fmt: skip
        return values, indices

    def _above(
        self,
        x: torch.Tensor,
        weight: PackedWeight,
        bias: torch.Tensor,
        thresholds: torch.Tensor,
        capacity: int,
    ) -> Iterator[Tensors]:
        """Counts and entries of some rows at a time. Rows of which a range has more than the
        capacity are encoded again, with as much as the fullest of them takes."""
        ranges = self._ranges(len(x), weight.n, capacity)
        for part in self._few(x, ranges * capacity):
            rows = len(part)
            entries = self._empty((rows, ranges, capacity, 2), torch.int32)
            counts = self._empty((rows, ranges), torch.int32)
            self.library.launch(
                "encode_above", part, rows, part.shape[1], weight.data, int(weight.format),
                weight.n, bias, thresholds, ranges, capacity, entries, counts,
            )  # fmt: skip
            if rows and int(counts.max()) > capacity:
                most = int(counts.sum(1).max())
                yield from self._above(part, weight, bias, thresholds, most)
            else:
                there = torch.arange(capacity, device=x.device) < counts[..., None]
                yield counts.sum(1), entries[there]

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

    def _ranges(self, rows: int, features: int, capacity: int) -> int:
        """Returns how many thread blocks share out the features of the same rows: few enough that
        their candidates are a fraction of the features."""
        most = int(self.library.value("encode_ranges", rows, features, BLOCKS))
        return max(1, min(most, features // (SPARSE * capacity)))

    def _few(self, x: torch.Tensor, candidates: int) -> Iterator[torch.Tensor]:
        """The rows, as many at a time as have candidates that fit into the kernels' workspace."""
        return iter(torch.split(x, max(1, self._kernels.workspace // (ENTRY * candidates))))

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self._kernels.empty(shape, dtype)
