"""The settings of low-rank adapters, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """The adapters of every linear inside blocks: linear(x, W) + linear(linear(x, A), B) * s.

    Attributes:
        rank: Rows of A and columns of B.
        alpha: s is alpha / rank.
    """

    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank = {self.rank!r}: expected a whole number, 1 or more")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha = {self.alpha!r}: expected a number above 0")
