"""The outputs of a matrix that each rank owns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

PANEL = 32
"""Outputs in a panel, the unit in which kernels read weights (docs/numerics.md, storage)."""


@dataclass(frozen=True)
class ColumnShards:
    """n output columns over `size` ranks: whole panels, in order, as evenly as they go.

    Any number of ranks will do: some own a panel more, and where there are fewer panels than ranks
    some own nothing.
    """

    n: int
    size: int

    @cached_property
    def bounds(self) -> list[int]:
        """Rank r owns columns bounds[r] to bounds[r + 1] - 1: size + 1 entries from 0 to n."""
        panels = -(-self.n // PANEL)
        return [min(self.n, PANEL * (panels * r // self.size)) for r in range(self.size + 1)]

    @cached_property
    def widths(self) -> list[int]:
        """Columns of each rank."""
        return [self.bounds[r + 1] - self.bounds[r] for r in range(self.size)]
