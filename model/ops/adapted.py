"""A matrix with a low-rank change beside it (Hu et al. 2022, LoRA)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .packed import PackedWeight


@dataclass(frozen=True, eq=False)
class AdaptedMatrix(PackedWeight):
    """W [n, k] that stays as it is, and s B A, which is never added to it.

    Attributes:
        a: [r, k].
        b: [n, r].
        scale: s.
    """

    a: PackedWeight
    b: PackedWeight
    scale: float

    @cached_property
    def base(self) -> PackedWeight:
        """W alone."""
        return PackedWeight(self.format, self.n, self.k, self.data)
