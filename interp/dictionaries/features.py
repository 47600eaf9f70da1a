"""Sparse activations of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .kernels import TopK


@dataclass(frozen=True, eq=False)
class Features:
    """The features that are active in each row, in compressed sparse rows.

    Attributes:
        indptr: int64 [N + 1]: row r has entries indptr[r] to indptr[r + 1].
        indices: int32 [E], ascending in each row.
        values: fp32 [E], never 0.
        shape: Of the dense tensor: the rows' own shape, then the number of features.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    shape: tuple[int, ...]

    @classmethod
    def from_top_k(cls, top: TopK, shape: tuple[int, ...]) -> Features:
        """Returns the positive entries of a top-k selection."""
        return cls._kept(top.values > 0, top.indices, top.values, shape)

    @classmethod
    def from_magnitudes(cls, top: TopK, signed: torch.Tensor, shape: tuple[int, ...]) -> Features:
        """Returns the entries of a top-k selection of magnitudes that are not 0, with their
        signs."""
        values = signed.gather(1, top.indices.long().clamp(min=0))
        return cls._kept(top.values > 0, top.indices, values, shape)

    @classmethod
    def from_dense(cls, acts: torch.Tensor) -> Features:
        """Returns the entries of dense activations [..., F] that are not 0."""
        rows = acts.reshape(-1, acts.shape[-1])
        active = rows != 0
        columns = torch.arange(rows.shape[1], dtype=torch.int32, device=acts.device)
        return cls._kept(active, columns.expand(rows.shape), rows.float(), tuple(acts.shape))

    @classmethod
    def _kept(
        cls,
        kept: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        shape: tuple[int, ...],
    ) -> Features:
        indptr = torch.zeros(len(kept) + 1, dtype=torch.int64, device=kept.device)
        torch.cumsum(kept.sum(1), 0, out=indptr[1:])
        return cls(indptr, indices[kept].contiguous(), values[kept].contiguous(), shape)

    @classmethod
    def joined(cls, parts: Sequence[Features], shape: tuple[int, ...]) -> Features:
        """Returns the entries of consecutive rows as Features of this shape."""
        if len(parts) == 1:
            return parts[0].reshaped(shape)
        first = parts[0].indptr.new_zeros(1)
        counts = torch.cat([first, *(p.indptr.diff() for p in parts)])
        return cls(
            torch.cumsum(counts, 0),
            torch.cat([p.indices for p in parts]),
            torch.cat([p.values for p in parts]),
            shape,
        )

    def reshaped(self, shape: tuple[int, ...]) -> Features:
        """Returns the same entries for rows of another shape."""
        return Features(self.indptr, self.indices, self.values, shape)

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    def rows(self) -> torch.Tensor:
        """Returns the row of each entry, int64 [E]."""
        rows = torch.arange(self.n_rows, device=self.indptr.device)
        return torch.repeat_interleave(rows, self.indptr.diff())

    def dense(self) -> torch.Tensor:
        """Returns the dense activations, fp32 [..., F]."""
        out = self.values.new_zeros(self.n_rows, self.shape[-1])
        out[self.rows(), self.indices.long()] = self.values
        return out.view(self.shape)

    def l0(self) -> float:
        """Returns the mean number of active features in a row."""
        return self.values.numel() / max(1, self.n_rows)

    def __post_init__(self) -> None:
        if math.prod(self.shape[:-1]) != len(self.indptr) - 1:
            raise ValueError(f"Features: {len(self.indptr) - 1} rows do not fill {self.shape}")
