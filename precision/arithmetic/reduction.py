"""Sums of intervals: all that the real sum may be, and what bounds its rounding errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import FP64, Format
from . import interval
from .interval import U64, Interval
from .lattice_bits import lowest_bit, sums_are_exact

Tensor = torch.Tensor


@dataclass(frozen=True)
class Reduction:
    """A sum over n terms, one for each output.

    Attributes:
        total: Encloses the real sums of all terms that may occur.
        magnitude: An upper bound on the sum of the terms' absolute values.
        grid: Every term is a multiple of it, 0 where no such number is known.
        n: Terms of each sum.
        nonzero: How many of them are not exactly 0: the others round nothing when added.
        nonnegative: Where no term is negative.
        products: (significant bits, largest value) of the terms if they are products that a format
            may have to round, else None.
    """

    total: Interval
    magnitude: Tensor
    grid: Tensor
    n: int
    nonzero: Tensor
    nonnegative: Tensor
    products: tuple[int, float] | None

    def is_exact(self, fmt: Format) -> Tensor:
        """Returns where every order of adding the terms in `fmt` rounds nothing."""
        return sums_are_exact(self.magnitude, self.grid, fmt)

    def rounds_products(self, fmt: Format) -> bool:
        """Whether forming the terms in `fmt` may round some of them."""
        if self.products is None:
            return False
        bits, largest = self.products
        fine = self.grid.isnan() | (self.grid >= fmt.smallest_subnormal)
        return bits > fmt.precision or largest > fmt.largest or not bool(fine.all())


def sum_of(v: Interval) -> Reduction:
    """Over the last axis, kept with size 1."""
    n = v.lo.shape[-1]
    size = v.magnitude()
    magnitude = size.sum(-1, keepdim=True) * (1 + 2 * n * U64)
    grid = lowest_bit(v.lo) if v.is_point else torch.where(v.lo == v.hi, lowest_bit(v.lo), 0.0)
    low = v.lo.sum(-1, keepdim=True)
    high = low if v.is_point else v.hi.sum(-1, keepdim=True)
    grid = grid.amin(-1, keepdim=True)
    return Reduction(
        total=_evaluated(low, high, magnitude, grid, n),
        magnitude=magnitude,
        grid=grid,
        n=n,
        nonzero=(size != 0).sum(-1, keepdim=True),
        nonnegative=(v.lo >= 0).all(-1, keepdim=True),
        products=None,
    )


def dot_of(a: Interval, b: Interval, bias: Interval | None) -> Reduction:
    """a [.., m, k] @ b [.., k, n] + bias [n], midpoints and radii apart (Rump 1999)."""
    k = a.lo.shape[-1]
    middle_a, radius_a = interval.midpoint_radius(a)
    middle_b, radius_b = interval.midpoint_radius(b)
    size_a, size_b = a.magnitude(), b.magnitude()
    magnitude = size_a @ size_b
    low = high = middle_a @ middle_b
    if not (a.is_point and b.is_point):
        radius = radius_a @ size_b if not a.is_point else torch.zeros_like(low)
        if not b.is_point:
            radius = radius + middle_a.abs() @ radius_b
        radius = radius * (1 + 4 * (k + 2) * U64)
        low, high = low - radius, high + radius
    grid_a, grid_b = _grid(a), _grid(b)
    grid = grid_a.amin(-1, keepdim=True) * grid_b.amin(-2, keepdim=True)
    nonzero = torch.minimum(
        (size_a != 0).sum(-1, keepdim=True), (size_b != 0).sum(-2, keepdim=True)
    )
    if bias is not None:
        low, high = low + bias.lo, high + bias.hi
        magnitude = magnitude + bias.magnitude()
        grid, nonzero = torch.minimum(grid, _grid(bias)), nonzero + 1
    magnitude = magnitude * (1 + 4 * (k + 2) * U64)
    bits = _significant_bits(a, grid_a) + _significant_bits(b, grid_b)
    largest = float(size_a.max() * size_b.max()) if size_a.numel() and size_b.numel() else 0.0
    return Reduction(
        total=_evaluated(low, high, magnitude, grid, k + 2),
        magnitude=magnitude,
        grid=grid,
        n=k + (bias is not None),
        nonzero=nonzero,
        nonnegative=torch.zeros_like(magnitude, dtype=torch.bool),
        products=(bits, largest),
    )


def _evaluated(low: Tensor, high: Tensor, magnitude: Tensor, grid: Tensor, n: int) -> Interval:
    """Sums as fp64 computed them, with fp64's own error outward; exact sums stay points."""
    exact = sums_are_exact(magnitude, grid, FP64)
    if low is high and bool(exact.all()):
        return Interval(low, low)
    error = (magnitude * (n * U64 * 1.01) + n * 5e-324).masked_fill(exact, 0.0)
    return interval.widened(Interval(low, high), error)


def _grid(v: Interval) -> Tensor:
    return lowest_bit(v.lo) if v.is_point else torch.where(v.lo == v.hi, lowest_bit(v.lo), 0.0)


def _significant_bits(v: Interval, grid: Tensor) -> int:
    """The widest element's bits, its highest set one to its lowest; 53 for what is no point."""
    finite = v.lo != 0
    if not bool(finite.any()):
        return 0
    if not v.is_point:
        return 53
    ratio = torch.where(finite, v.lo.abs() / grid, 1.0)
    return int(torch.frexp(ratio).exponent.max()) if bool(ratio.isfinite().all()) else 53
