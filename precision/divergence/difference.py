"""The distance between two tensors, as cheap as a look at every operation demands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Difference:
    """b against a.

    Attributes:
        elements: How many there are.
        differing: How many differ; those that only trade +0 for -0 count where nothing else does.
        error: The 2-norm of b - a over that of a; inf where only one is finite, or a is all zeros.
        largest: The largest |b - a|.
    """

    elements: int
    differing: int
    error: float
    largest: float

    @property
    def identical(self) -> bool:
        """Whether all values are the same, and all bits in one dtype."""
        return self.differing == 0


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have one shape, dtype and bit patterns."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def difference(a: torch.Tensor, b: torch.Tensor) -> Difference:
    """Compares b with a. Raises ValueError if their shapes differ."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {list(a.shape)} and {list(b.shape)} differ")
    if same_bits(a, b):
        return Difference(a.numel(), 0, 0.0, 0.0)
    # fp64 only where the operands are: the verdict needs the error's size, not its digits.
    wide = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    x, y = a.to(wide), b.to(wide)
    gap = y - x
    above, below = _norm(gap), _norm(x)
    if not (math.isfinite(above) and math.isfinite(below)):
        return _with_nonfinite(x, y, gap)
    low, high = torch.aminmax(gap)
    largest = max(-float(low), float(high))
    differing = int(torch.count_nonzero(gap))
    if differing == 0 and a.dtype == b.dtype:
        differing = int(torch.count_nonzero(_bits(a) != _bits(b)))
    return Difference(a.numel(), differing, _ratio(above, below), largest)


def worst(a: torch.Tensor, b: torch.Tensor) -> tuple[int, ...]:
    """The index at which |b - a| is largest; NaN counts as largest."""
    gap = (b.double() - a.double()).abs()
    at = torch.unravel_index(gap.argmax(), gap.shape)
    return tuple(int(i) for i in at)


def _with_nonfinite(x: torch.Tensor, y: torch.Tensor, gap: torch.Tensor) -> Difference:
    """Infinities and NaN that both have are no difference, any other is an infinite one."""
    agreed = (x == y) | (x.isnan() & y.isnan())
    differing = int(torch.count_nonzero(~agreed))
    if not bool(((x.isfinite() & y.isfinite()) | agreed).all()):
        return Difference(x.numel(), differing, math.inf, math.inf)
    gap = gap.masked_fill(agreed, 0.0)
    base = x.masked_fill(~x.isfinite(), 0.0)
    error = _ratio(_norm(gap), _norm(base))
    return Difference(x.numel(), differing, error, float(gap.abs().max()))


def _ratio(above: float, below: float) -> float:
    if above == 0:
        return 0.0
    return above / below if below > 0 else math.inf


def _norm(x: torch.Tensor) -> float:
    norm = float(torch.linalg.vector_norm(x))
    # Squares overflow and underflow in fp32 long before the values do.
    if 1e-15 < norm < math.inf or math.isnan(norm):
        return norm
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(_BITS[x.element_size()])
