"""The real value, in fp64 with a proven enclosure.

Every step keeps an interval that holds the real result; sums are bounded by Higham 2002, section
3.1 (n u / (1 - n u) sum |x|, here with a margin of 1%). Where two ways of writing a formula exist,
both hold the value, so their intersection does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import interval
from .interface import Arithmetic
from .interval import Interval, point
from .reduction import Reduction, dot_of, sum_of

Tensor = torch.Tensor
Shared = dict[tuple[int, ...], tuple[tuple[Interval, ...], Reduction]]


class ExactArithmetic(Arithmetic[Interval]):
    """Nothing rounds but fp64 itself, outward.

    Arithmetics given one dict share the dot products of the same tensors.
    """

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = {} if shared is None else shared

    def given(self, x: Tensor) -> Interval:
        return point(x.to(torch.float64))

    def constant(self, value: float, *, exact: bool = True) -> Interval:
        v = torch.tensor(value, dtype=torch.float64)
        return point(v) if exact else interval.outward(v, v)

    def declares(self, point: str) -> bool:
        return False

    def cast(self, v: Interval, point: str) -> Interval:
        return v

    def in_format(self, name: str) -> Arithmetic[Interval]:
        return self

    def convert(self, v: Interval) -> Interval:
        return v

    def either(self, *forms: Callable[[], Interval]) -> Interval:
        first, *others = (form() for form in forms)
        lo, hi = first.lo, first.hi
        for other in others:  # fmax and fmin pass over a form that claims nothing
            lo, hi = torch.fmax(lo, other.lo), torch.fmin(hi, other.hi)
        return Interval(lo, hi)

    def shape(self, fn: Callable[..., Tensor], *values: Interval) -> Interval:
        lo = fn(*(v.lo for v in values))
        if all(v.is_point for v in values):
            return point(lo)
        return Interval(lo, fn(*(v.hi for v in values)))

    def where(self, mask: Tensor, v: Interval, otherwise: float) -> Interval:
        return v.map(lambda end: torch.where(mask, end, otherwise))

    def neg(self, v: Interval) -> Interval:
        return interval.neg(v)

    def add(self, a: Interval, b: Interval) -> Interval:
        return self._rounded(interval.add(a, b))

    def mul(self, a: Interval, b: Interval) -> Interval:
        return self._rounded(interval.mul(a, b))

    def div(self, a: Interval, b: Interval) -> Interval:
        return self._rounded(interval.div(a, b))

    def square(self, v: Interval) -> Interval:
        return self._rounded(interval.square(v))

    def sqrt(self, v: Interval) -> Interval:
        """A function like others: vector libraries, torch's on CPUs, do not round it correctly."""
        return self._function(interval.sqrt(v))

    def rsqrt(self, v: Interval) -> Interval:
        root = interval.sqrt(v)
        lo, hi = 1 / root.hi, 1 / root.lo.clamp(min=0.0).abs()
        return self._function(interval.outward(lo, hi))

    def exp(self, v: Interval) -> Interval:
        result = interval.increasing(v, torch.exp, 0.0, 1.0)
        zero = v.hi == -torch.inf
        return self._function(
            Interval(result.lo.clamp(min=0.0), result.hi.masked_fill(zero, 0.0)), v
        )

    def log(self, v: Interval) -> Interval:
        result = interval.increasing(v, torch.log, 1.0, 0.0)
        zero = v.hi == 0  # the logarithm of exactly 0
        return self._function(result.map(lambda end: end.masked_fill(zero, -torch.inf)), v, at=1.0)

    def tanh(self, v: Interval) -> Interval:
        return self._clamped(interval.increasing(v, torch.tanh, 0.0, 0.0), v)

    def erf(self, v: Interval) -> Interval:
        return self._clamped(interval.increasing(v, torch.erf, 0.0, 0.0), v)

    def erfc(self, v: Interval) -> Interval:
        mirrored = interval.neg(v)
        result = interval.increasing(mirrored, lambda x: torch.special.erfc(-x), 0.0, 1.0)
        return self._function(Interval(result.lo.clamp(min=0.0), result.hi), v)

    def cos(self, v: Interval) -> Interval:
        return self._function(interval.lipschitz(v, torch.cos, 1.0), v)

    def sin(self, v: Interval) -> Interval:
        return self._function(interval.lipschitz(v, torch.sin, 0.0), v)

    def power(self, base: float, exponent: Interval) -> Interval:
        return self._function(
            interval.increasing(exponent, lambda x: torch.pow(base, x), 0.0, 1.0), exponent
        )

    def _clamped(self, v: Interval, argument: Interval) -> Interval:
        inside = Interval(v.lo.clamp(min=-1.0), v.hi.clamp(max=1.0))
        return self._function(inside, argument)

    def shifted(self, v: Interval) -> tuple[Interval, Interval]:
        maximum = v.map(_finite_maximum)
        difference = self.add(v, interval.neg(maximum))
        return Interval(difference.lo, difference.hi.clamp(max=0.0)), maximum

    def leads(self, v: Interval, chosen: Tensor) -> Tensor:
        least = v.lo.masked_fill(~chosen, torch.inf).amin(-1, keepdim=True)
        return least > v.hi.masked_fill(chosen, -torch.inf).amax(-1, keepdim=True)

    def sum(self, v: Interval, *, updates: int = 0, rescaled: bool = False) -> Interval:
        return self._reduced(sum_of(v), updates=updates, rescaled=rescaled)

    def dot(
        self,
        a: Interval,
        b: Interval,
        bias: Interval | None = None,
        *,
        updates: int = 0,
        rescaled: bool = False,
    ) -> Interval:
        return self._reduced(self._dot_of(a, b, bias), updates=updates, rescaled=rescaled)

    def scaled_deviation(
        self, x: Interval, mean: Interval, scale: Interval, offset: Interval | None = None
    ) -> Interval:
        deviation = self.mul(self.sub(x, mean), scale)
        return deviation if offset is None else self.add(deviation, offset)

    def _dot_of(self, a: Interval, b: Interval, bias: Interval | None) -> Reduction:
        operands = (a, b) if bias is None else (a, b, bias)
        key = tuple(id(end) for v in operands for end in (v.lo, v.hi))
        if key not in self._shared:  # with the operands, so that no id is used again
            self._shared[key] = (operands, dot_of(a, b, bias))
        return self._shared[key][1]

    def _rounded(self, v: Interval) -> Interval:
        return v

    def _function(self, v: Interval, argument: Interval | None = None, at: float = 0.0) -> Interval:
        return v

    def _reduced(self, r: Reduction, *, updates: int, rescaled: bool) -> Interval:
        return r.total


def _finite_maximum(end: Tensor) -> Tensor:
    maximum = end.amax(-1, keepdim=True)
    return maximum.masked_fill(maximum == -torch.inf, 0.0)
