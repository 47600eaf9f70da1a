"""Sums over rows, from which figures of reconstruction follow at any time.

All sums are fp64: the variance is the difference of two large numbers. Shapes: N rows, d width.
"""

from __future__ import annotations

import math

import torch

_NEGLIGIBLE = 1e-10
"""A variance or error below this counts as 0, as in SAELens."""


class RowSums:
    """Sums over rows x and their reconstructions x_hat, in memory that does not grow with them."""

    def __init__(self, width: int) -> None:
        self.n_rows = 0
        self._sum_d = torch.zeros(width, dtype=torch.float64, device="cpu")
        self._squares = self._residuals = self._cosines = 0.0

    def add(self, x: torch.Tensor, x_hat: torch.Tensor) -> None:
        """Adds rows x and x_hat, [N, d] each."""
        x, x_hat = x.double(), x_hat.double()
        squares, squares_hat = x.square().sum(1), x_hat.square().sum(1)
        norms = (squares * squares_hat).sqrt()
        cosines = ((x * x_hat).sum(1) / norms).where(norms > 0, 0.0)
        self.n_rows += len(x)
        # A row of the transpose is summed by one thread, whose order is fixed.
        self._sum_d += x.T.contiguous().sum(1)
        self._squares = _plus(self._squares, squares)
        self._residuals = _plus(self._residuals, (x - x_hat).square().sum(1))
        self._cosines = _plus(self._cosines, cosines)

    def mean(self) -> torch.Tensor:
        """Returns the mean row, fp64 [d]."""
        return self._sum_d / max(1, self.n_rows)

    def mse(self) -> float:
        """Returns the mean of |x - x_hat|^2."""
        return self._residuals / max(1, self.n_rows)

    def cossim(self) -> float:
        """Returns the mean cosine."""
        return self._cosines / max(1, self.n_rows)

    def explained_variance(self) -> float:
        """Returns 1 - sum |x - x_hat|^2 / sum |x - mean|^2; 1 or 0 where all x are equal."""
        variance = self._squares / max(1, self.n_rows) - float(self.mean().square().sum())
        if variance < _NEGLIGIBLE:
            return 1.0 if self.mse() < _NEGLIGIBLE else 0.0
        return 1.0 - self.mse() / variance


def _plus(total: float, values: torch.Tensor) -> float:
    return math.fsum([total, *values.tolist()])
