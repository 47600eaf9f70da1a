"""Real intervals in fp64, rounded outward (Moore 1966; Rump, Acta Numerica 2010, sections 5, 9).

An endpoint that is NaN claims nothing. Bounds that happen to be exact stay exact, so that a result
that is known exactly (integers, ties, zeros) remains a point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Tensor = torch.Tensor

U64 = 2.0**-53
# What torch's fp64 exp, log, tanh, erf, cos, sin and pow may err, relative: SLEEF states 1 ULP.
LIBM = 4 * 2.0**-52


@dataclass(frozen=True, eq=False)
class Interval:
    """All reals from lo to hi (fp64 tensors of one shape; the same tensor for a point)."""

    lo: Tensor
    hi: Tensor

    @property
    def is_point(self) -> bool:
        return self.lo is self.hi

    def map(self, fn: Callable[[Tensor], Tensor]) -> Interval:
        lo = fn(self.lo)
        return Interval(lo, lo if self.is_point else fn(self.hi))

    def magnitude(self) -> Tensor:
        """The largest absolute value inside."""
        return self.lo.abs() if self.is_point else torch.maximum(self.lo.abs(), self.hi.abs())


def point(x: Tensor) -> Interval:
    return Interval(x, x)


def down(x: Tensor) -> Tensor:
    return torch.nextafter(x, x.new_tensor(-torch.inf))


def up(x: Tensor) -> Tensor:
    return torch.nextafter(x, x.new_tensor(torch.inf))


def outward(lo: Tensor, hi: Tensor, exact: Tensor | None = None) -> Interval:
    """One fp64 step out at both ends, except where `exact`."""
    if exact is None:
        return Interval(down(lo), up(hi))
    if bool(exact.all()) and lo is hi:
        return point(lo)
    return Interval(torch.where(exact, lo, down(lo)), torch.where(exact, hi, up(hi)))


def hull(a: Interval, b: Interval) -> Interval:
    return Interval(torch.minimum(a.lo, b.lo), torch.maximum(a.hi, b.hi))


def neg(v: Interval) -> Interval:
    return point(-v.lo) if v.is_point else Interval(-v.hi, -v.lo)


def add(a: Interval, b: Interval) -> Interval:
    lo, error_lo = two_sum(a.lo, b.lo)
    if a.is_point and b.is_point:
        if not bool((error_lo != 0).any()):
            return point(lo)
        hi, error_hi = lo, error_lo
    else:
        hi, error_hi = two_sum(a.hi, b.hi)
    opposite = (a.hi == torch.inf) & (b.lo == -torch.inf)
    opposite |= (a.lo == -torch.inf) & (b.hi == torch.inf)
    lo, hi = torch.where(error_lo < 0, down(lo), lo), torch.where(error_hi > 0, up(hi), hi)
    return _unclaimed(Interval(lo, hi), opposite)


def _unclaimed(v: Interval, where: Tensor) -> Interval:
    """NaN may come out there."""
    return v.map(lambda end: end.masked_fill(where, torch.nan)) if bool(where.any()) else v


def _may_be_nan(a: Interval, b: Interval) -> Tensor:
    """Where a product may be 0 * inf."""
    zero_a, zero_b = ((v.lo <= 0) & (v.hi >= 0) for v in (a, b))
    return (zero_a & b.magnitude().isinf()) | (zero_b & a.magnitude().isinf())


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and its rounding error exactly (Knuth 1969; Moller 1965)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def short(x: Tensor) -> Tensor:
    """Returns where x has at most 24 significant bits, in fp32's range: products exact in fp64."""
    return x.to(torch.float32).to(torch.float64) == x


def mul(a: Interval, b: Interval) -> Interval:
    if a.is_point and b.is_point:
        product = a.lo * b.lo
        return outward(product, product, short(a.lo) & short(b.lo))
    exact = short(a.lo) & short(b.lo) & short(a.hi) & short(b.hi)
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    lo = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(*corners[2:]))
    hi = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(*corners[2:]))
    return _unclaimed(outward(lo, hi, exact), _may_be_nan(a, b))


def square(v: Interval) -> Interval:
    if v.is_point:
        return mul(v, v)
    smallest = torch.where((v.lo <= 0) & (v.hi >= 0), 0.0, torch.minimum(v.lo.abs(), v.hi.abs()))
    largest = v.magnitude()
    exact = short(smallest) & short(largest)
    result = outward(smallest * smallest, largest * largest, exact)
    return Interval(result.lo.clamp(min=0.0), result.hi)


def div(a: Interval, b: Interval) -> Interval:
    """No claim where b holds 0 without being exactly 0; IEEE's own answer where it is."""
    if a.is_point and b.is_point:
        quotient = a.lo / b.lo
        exact = short(quotient) & short(b.lo) & (quotient * b.lo == a.lo)
        return outward(quotient, quotient, exact)
    corners = [x / y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    lo = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(*corners[2:]))
    hi = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(*corners[2:]))
    straddles = (b.lo <= 0) & (b.hi >= 0)
    quotient = a.lo / b.lo
    exact = (lo == hi) & short(quotient) & short(b.lo) & (quotient * b.lo == a.lo)
    exact = exact & (a.lo == a.hi) & (b.lo == b.hi)
    return _unclaimed(outward(lo, hi, exact), straddles)


def increasing(v: Interval, fn: Callable[[Tensor], Tensor], at: float, value: float) -> Interval:
    """An increasing libm function, exactly `value` at `at`."""
    lo = fn(v.lo)
    hi = lo if v.is_point else fn(v.hi)
    largest = torch.finfo(torch.float64).max  # an overflow to inf proves only that much
    lo = lo.clamp(max=largest)
    return Interval(
        torch.where(v.lo == at, value, lo - lo.abs() * LIBM - 5e-324),
        torch.where(v.hi == at, value, hi + hi.abs() * LIBM + 5e-324),
    )


def sqrt(v: Interval) -> Interval:
    lo = v.lo.clamp(min=0.0).sqrt()
    hi = lo if v.is_point else v.hi.clamp(min=0.0).sqrt()
    exact = short(lo) & short(hi) & (lo * lo == v.lo) & (hi * hi == v.hi)
    return outward(lo, hi, exact)


def lipschitz(v: Interval, fn: Callable[[Tensor], Tensor], at_zero: float) -> Interval:
    """cos or sin: values in [-1, 1], slope at most 1."""
    middle, radius = midpoint_radius(v)
    value = fn(middle)
    radius = radius + value.abs() * LIBM
    lo, hi = down(value - radius).clamp(min=-1.0), up(value + radius).clamp(max=1.0)
    zero = (v.lo == 0) & (v.hi == 0)
    return Interval(torch.where(zero, at_zero, lo), torch.where(zero, at_zero, hi))


def midpoint_radius(v: Interval) -> tuple[Tensor, Tensor]:
    """A midpoint and a radius that together cover v."""
    if v.is_point:
        return v.lo, torch.zeros_like(v.lo)
    middle = v.lo + (v.hi - v.lo) / 2
    return middle, up(torch.maximum(v.hi - middle, middle - v.lo))


def widened(v: Interval, error: Tensor) -> Interval:
    """v with `error` >= 0 on both sides, outward; a point stays one where the error is 0."""
    lo, hi = v.lo - error, v.hi + error
    still = error == 0
    return Interval(torch.where(still, v.lo, down(lo)), torch.where(still, v.hi, up(hi)))
