"""Seeded numbers of one format, in rows of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from ...precision.formats import Format, round_to

Tensor = torch.Tensor
T = TypeVar("T")


class Numbers:
    """Draws numbers of a format from a generator."""

    def __init__(self, fmt: Format, generator: torch.Generator) -> None:
        self.format, self.generator = fmt, generator

    def one_of(self, choices: Sequence[T]) -> T:
        """Returns one of the choices."""
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def integers(self, below: int, *shape: int) -> Tensor:
        """Returns int64 numbers from 0 to below that one."""
        return torch.randint(below, shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Returns normal numbers in fp64."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def stored(self, x: Tensor) -> Tensor:
        """Returns x rounded to the format."""
        return round_to(x, self.format).to(self.format.dtype)

    def scales(self, *shape: int) -> Tensor:
        """Returns positive numbers over seven powers of two."""
        return self.stored(2.0 ** self.normal(*shape).clamp(-3, 3) * 0.25)

    def rows(self, *shape: int, limit: float | None = None) -> Tensor:
        """Returns rows along the last axis, each of its own kind; magnitudes clamped to `limit`."""
        narrow = self.format.max_exponent < 64
        integers = torch.randint(-8 if narrow else -20, 9, shape, generator=self.generator)
        x, half = self.normal(*shape), shape[-1] // 2
        opposite = x.clone()
        nearly = 1 + self.format.unit_roundoff * x[..., half : 2 * half].round()
        opposite[..., half : 2 * half] = -x[..., :half] * nearly
        vanishing = torch.full(shape, 2.0**-12 * (1 - 2.0**-9), dtype=torch.float64)
        vanishing[..., 0] = 1.0
        kinds = (
            x,
            x * 2.0**integers,  # wide range
            opposite,
            x + 100.0,  # large mean
            vanishing,
            (4 * x).round() / 4,  # few bits: ties
            x * self.format.smallest_normal,
            x.masked_fill(integers < 7, 0.0) * 64 + x,  # massive activations
        )
        chosen = torch.randint(len(kinds), (*shape[:-1], 1), generator=self.generator)
        for i, kind in enumerate(kinds):
            x = torch.where(chosen == i, kind, x)
        return self.stored(x if limit is None else x.clamp(-limit, limit))
