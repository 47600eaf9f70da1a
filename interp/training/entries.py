"""Sparse activations of a batch, and the gradients that flow through them.

Shapes: B rows, F features, E entries, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..dictionaries import kernels
from ..dictionaries.kernels import Columns, TopK


@dataclass(frozen=True, eq=False)
class Entries:
    """The features of each row that take part in a step.

    Attributes:
        starts: int64 [B + 1]: row r has entries starts[r] to starts[r + 1].
        indices: int32 [E], the features, ascending in each row; -1 where there is none.
        n_features: F.
    """

    starts: torch.Tensor
    indices: torch.Tensor
    n_features: int

    @classmethod
    def of_top_k(cls, top: TopK, n_features: int) -> Entries:
        """Returns the entries of a selection of k in each row."""
        rows, k = top.indices.shape
        return cls(kernels.row_starts(rows, k), top.indices.reshape(-1), n_features)

    @classmethod
    def of_mask(cls, mask_BF: torch.Tensor) -> Entries:
        """Returns the entries where a mask is true."""
        starts = torch.zeros(len(mask_BF) + 1, dtype=torch.int64, device="cpu")
        torch.cumsum(mask_BF.sum(1), 0, out=starts[1:])
        return cls(starts, mask_BF.nonzero()[:, 1].to(torch.int32), mask_BF.shape[1])

    @property
    def n_rows(self) -> int:
        return len(self.starts) - 1

    def rows(self) -> torch.Tensor:
        """Returns the row of each entry, int64 [E]."""
        return torch.repeat_interleave(torch.arange(self.n_rows, device="cpu"), self.starts.diff())

    def take(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Returns a dense matrix's values at the entries, [E]; 0 where there is none."""
        values = x_BF[self.rows(), self.indices.long().clamp(min=0)]
        return values.where(self.indices >= 0, 0.0)

    def columns(self) -> Columns:
        """Returns the entries sorted by feature."""
        return kernels.by_column(self.indices, self.n_features)

    def decode(
        self, values: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns [B, d]: the sum over each row's entries of values times rows of the table."""
        return kernels.weighted_sums(values, self.indices, self.starts, table, bias)

    def dots(self, x_Bd: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Returns [E]: each entry's row of x times its row of the table."""
        return kernels.gathered_dots(x_Bd, self.indices, self.starts, table)

    def outer(self, values: torch.Tensor, x_Bd: torch.Tensor, columns: Columns) -> torch.Tensor:
        """Returns [F, d]: for each feature the sum over its entries of values times rows of x."""
        order = columns.order.long()
        rows = self.rows()[order].to(torch.int32)
        return kernels.weighted_sums(values[order], rows, columns.starts, x_Bd)

    def sums(self, values: torch.Tensor, columns: Columns) -> torch.Tensor:
        """Returns [F]: the sum of each feature's values."""
        ones = torch.ones(self.n_rows, 1, dtype=torch.float32, device="cpu")
        return self.outer(values, ones, columns)[:, 0]
