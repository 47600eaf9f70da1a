"""The size of each kind of error that an arithmetic may make, as closed bounds see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from ..formats import FP64, Format
from .growth import product_growth

Tensor = torch.Tensor


@dataclass(frozen=True)
class RoundingModel:
    """Roundings to nearest; underflow is gradual unless the contract allows it to be sudden.

    Attributes:
        casts: The format at each named point where a value is rounded once more.
        function_ulp: What exp, log, rsqrt, sin... may err, in ULP of `compute`.
        angles: The format rotary angles are formed in.
        may_flush: Subnormals may become zeros anywhere.
        rescalings: How often the sums of a softmax over n keys may be rescaled.
        depth: The most additions that a term of an n-term reduction passes through.
        growth: The relative error of n roundings of unit roundoff u within a reduction.
    """

    compute: Format
    accumulate: Format
    casts: Mapping[str, Format] = field(default_factory=dict)
    function_ulp: float = 2.0
    angles: Format | None = None
    may_flush: bool = False
    rescalings: Callable[[int], int] = lambda n: 0
    depth: Callable[[int], int] = lambda n: n - 1
    growth: Callable[[int, float], float] = product_growth

    @property
    def u(self) -> float:
        return self.compute.unit_roundoff

    @property
    def function(self) -> float:
        """The relative error of one function, which one ULP bounds by 2 u."""
        return 2 * self.function_ulp * self.u

    def exponential(self, magnitude: Tensor) -> Tensor:
        """The error of exp(t)'s logarithm for |t| = `magnitude`, base e or base 2."""
        function = -math.log1p(-self.function) if self.function < 1 else math.inf
        return 2 * self.steps(1) * magnitude + function + self.steps(1)

    def in_angles(self) -> RoundingModel:
        """This model computing in the format of rotary angles."""
        return self if self.angles is None else replace(self, compute=self.angles)

    @property
    def underflow(self) -> float:
        """The absolute error of an operation whose result is subnormal, functions' included.

        Where subnormals may be flushed, of a product and of the partial sum that takes it up.
        """
        formats = (self.compute, self.accumulate)
        if self.may_flush:
            return 2 * max(fmt.smallest_normal for fmt in formats)
        return self.function_ulp * max(fmt.smallest_subnormal for fmt in formats)

    def lost(self, fmt: Format) -> float:
        """The absolute error of rounding into `fmt` where that underflows."""
        return fmt.smallest_normal if self.may_flush else fmt.smallest_subnormal / 2

    def flushed(self, x: Tensor) -> Tensor:
        """Returns what is lost of |x| (fp64) where an input may be flushed."""
        lost = x.abs() < (self.compute.smallest_normal if self.may_flush else 0.0)
        return x.abs().masked_fill(~lost, 0.0)

    def steps(self, n: int) -> float:
        """n elementwise operations, relatively."""
        return product_growth(n, self.u)

    def reduction(self, n: int, *, exact_terms: bool = False) -> float:
        """A sum of n terms, which are rounded themselves unless `exact_terms`, relatively.

        A rounded term counts as rounded to the narrower of compute and accumulator, so that chains
        of FMAs, which round n times and no product, are covered too.
        """
        total = self.growth(max(self.depth(n), 0), self.accumulate.unit_roundoff)
        if not exact_terms:  # (1 + total) (1 + addition) - 1, which 1 + u would lose for fp64's u
            total = total + self.addition + total * self.addition
        return total

    def products_exact(self, a: Tensor, b: Tensor) -> bool:
        """Whether every product of an entry of a and one of b fits the accumulator."""
        room = min(self.compute.precision, self.accumulate.precision)
        return _significand_bits(a) + _significand_bits(b) <= room

    def cast(self, point: str, value: Tensor, error: Tensor) -> Tensor:
        """The error at most after the cast at `point` of what lies within `error` of `value`."""
        fmt = self.casts.get(point)
        if fmt is None or (_holds(fmt, self.compute) and _holds(fmt, self.accumulate)):
            return error
        reach = value.abs() + error
        error = error + fmt.unit_roundoff * reach + self.lost(fmt)
        return error.masked_fill(reach > fmt.largest, torch.inf)

    @property
    def addition(self) -> float:
        """One addition in `compute` or in `accumulate`, relatively."""
        return product_growth(1, max(self.u, self.accumulate.unit_roundoff))

    def dot_growth(self, n: int, *, exact_terms: bool) -> float:
        """An inner product of n terms, relatively, with the cast of its factors."""
        inputs = self.casts.get("inputs")
        if inputs is None:
            return self.reduction(n, exact_terms=exact_terms)
        rounded = 1 + product_growth(2, inputs.unit_roundoff)
        return rounded * (1 + self.reduction(n, exact_terms=True)) - 1

    def rescaled(self, n: int, growth: float) -> float:
        """`growth` of a reduction over n keys whose running maximum may change on the way.

        What the rescaling factors' arguments are off telescopes to what exp(score - max) may be
        off; each factor still costs a function and two roundings.
        """
        each = (1 + self.function) * (1 + self.steps(2)) - 1
        return (1 + growth) * (1 + product_growth(self.rescalings(n), each)) - 1

    def within_range(self, error: Tensor, magnitude: Tensor) -> Tensor:
        """`error`, infinite where intermediate sums of `magnitude` can overflow."""
        largest = min(self.compute.largest, self.accumulate.largest)
        return error.masked_fill(~(magnitude <= largest * (1 - 2.0**-10)), torch.inf)


def fp64_model(depth: Callable[[int], int] = lambda n: n - 1) -> RoundingModel:
    """Our own fp64 evaluation; four ULP is more than torch's fp64 functions err."""
    return RoundingModel(FP64, FP64, function_ulp=4.0, depth=depth)


def _holds(fmt: Format, other: Format) -> bool:
    return (
        fmt.precision >= other.precision
        and fmt.largest >= other.largest
        and fmt.smallest_subnormal <= other.smallest_subnormal
    )


def _significand_bits(x: Tensor) -> int:
    """The most bits from the leading to the last set one of a significand in x."""
    if x.numel() == 0:
        return 0
    bits = x.detach().to(torch.float64).contiguous().view(torch.int64)
    significand = (bits & ((1 << 52) - 1)) | (1 << 52)
    lowest = int((significand & -significand).min())
    return 54 - lowest.bit_length()
