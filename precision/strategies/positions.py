"""Sizes and places where kernels change their path: tiles, long positions, batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st

from .fills import Steps
from .recipe import Recipe


def tile_sizes(
    tiles: Sequence[int] = (16, 64, 256), *, max_size: int | None = None
) -> st.SearchStrategy[int]:
    """1, or one less than, equal to, or one more than a tile or two tiles; small sizes first."""
    around = {1} | {n * tile + d for tile in tiles for n in (1, 2) for d in (-1, 0, 1)}
    sizes = sorted(size for size in around if size >= 1 and (max_size is None or size <= max_size))
    return st.sampled_from(sizes)


def tile_boundary_shapes(
    n_dims: int = 2, tiles: Sequence[int] = (16, 64, 256), *, max_size: int | None = None
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of `n_dims` such sizes: 255, 256, 257 and their like."""
    return st.tuples(*[tile_sizes(tiles, max_size=max_size)] * n_dims)


@st.composite
def long_rope_positions(draw: st.DrawFn, n: int, *, max_position: int = 2**20) -> Recipe:
    """`n` consecutive positions (int64) that start near a power of two up to `max_position`.

    Past 2**8 a bf16 position is no longer itself, past 2**11 an fp16 one; angles formed in fp32
    lose 0.01 rad by 2**18.
    """
    exponent = draw(st.integers(0, max_position.bit_length() - 1))
    before = draw(st.integers(0, n))
    start = max(0, min(2**exponent, max_position - n + 1) - before)
    return Recipe((n,), "int64", Steps(start))


@dataclass(frozen=True)
class Composition:
    """A way to feed the same rows: their order, the sizes of groups, and the padding.

    A result that depends on any of it is not batch-invariant.
    """

    order: tuple[int, ...]
    groups: tuple[int, ...]
    padding: int = 0
    side: Literal["left", "right"] = "right"

    def split(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Rows of x [n, ...] in `order`, cut into groups, each padded with `padding` zero rows."""
        if len(x) != len(self.order):
            raise ValueError(f"{self!r} is for {len(self.order)} rows, got {len(x)}")
        zeros = x.new_zeros((self.padding, *x.shape[1:]))
        pieces = []
        for group in torch.split(x[list(self.order)], list(self.groups)):
            parts = (zeros, group) if self.side == "left" else (group, zeros)
            pieces.append(torch.cat(parts))
        return pieces

    def join(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `split` for results of the same leading lengths."""
        start = self.padding if self.side == "left" else 0
        rows = torch.cat(
            [piece[start : start + n] for piece, n in zip(pieces, self.groups, strict=True)]
        )
        return rows[torch.tensor(self.order).argsort()]


@st.composite
def batch_compositions(draw: st.DrawFn, n: int, *, max_padding: int = 3) -> Composition:
    """Ways to feed `n` rows; shrinks toward all of them at once, in order, without padding."""
    cuts = draw(st.sets(st.integers(1, n - 1))) if n > 1 else set()
    edges = [0, *sorted(cuts), n]
    groups = tuple(b - a for a, b in itertools.pairwise(edges))
    order = tuple(draw(st.permutations(range(n))))
    padding = draw(st.integers(0, max_padding))
    side: Literal["left", "right"] = draw(st.sampled_from(["right", "left"]))
    return Composition(order, groups, padding, side)
