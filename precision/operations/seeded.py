"""Seeded numbers of a format, for inputs that are chosen against a fault."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import Format, round_to

Tensor = torch.Tensor


@dataclass(frozen=True)
class SeededDraw:
    """Numbers of `format`, for an operation that sums in `accumulate`."""

    format: Format
    accumulate: Format
    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, stored."""
        return self.stored(torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), not yet stored."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def stored(self, x: Tensor) -> Tensor:
        """fp64 rounded to the format, in its dtype."""
        return round_to(x, self.format).to(self.format.dtype or torch.float32)

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        """One value throughout, stored."""
        return self.stored(torch.full(shape, value, dtype=torch.float64))

    @property
    def tiny(self) -> Tensor:
        """One number below the smallest normal one."""
        return self.full((1,), 0.75 * self.format.smallest_normal)

    @property
    def largest(self) -> Tensor:
        """The format's largest number."""
        return self.full((1,), self.format.largest)
