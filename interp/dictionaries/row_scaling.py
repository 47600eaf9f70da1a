"""SAELens's normalize_activations on every row, in the kernels' fixed orders.

Shapes: N rows, d width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from . import kernels

_EPS = 1e-5


@dataclass(frozen=True, eq=False)
class RowScaling:
    """A shift and a scale of each row, fp32 [N, 1]: a row is encoded as (x - shift) / divisor.

    Attributes:
        restored: What a reconstruction is multiplied by before the shift is added: the divisor, but
            for layer_norm's eps, which SAELens leaves out there.
    """

    shift: torch.Tensor
    divisor: torch.Tensor
    restored: torch.Tensor

    def applied(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns normalised rows."""
        return (rows - self.shift) / self.divisor

    def undone(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns reconstructions of the rows as they were."""
        return rows * self.restored + self.shift


def row_scaling(kind: str, rows: torch.Tensor) -> RowScaling:
    """Returns how each of fp32 rows [N, d] is normalised.

    "constant_norm_rescale" brings a row's norm to sqrt(d); "layer_norm" takes its mean, and divides
    by its deviation with d - 1 degrees of freedom plus 1e-5.

    Raises ValueError for a row that is all 0, which has no direction to keep.
    """
    n, d = rows.shape
    if kind == "constant_norm_rescale":
        norm = kernels.sums_of_squares(rows).sqrt()[:, None]
        if not bool((norm > 0).all()):
            raise ValueError("encode: a row of zeros cannot be brought to a norm of sqrt(d_in)")
        divisor = norm / math.sqrt(d)
        return RowScaling(rows.new_zeros(n, 1), divisor, divisor)
    ones, each = rows.new_ones(1, d), rows.new_zeros(n, dtype=torch.int32)
    starts = kernels.row_starts(n, 1, rows.device)
    sums = kernels.gathered_dots(rows, each, starts, ones)[:, None]
    mean = sums / d
    squares = kernels.sums_of_squares(rows - mean)[:, None]
    deviation = (squares / max(1, d - 1)).sqrt()
    return RowScaling(mean, deviation + _EPS, deviation)
