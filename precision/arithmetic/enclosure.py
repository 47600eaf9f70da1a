"""Every result that a contract permits, as an interval.

A rounding to nearest is monotone: it takes [lo, hi] to [round(lo), round(hi)]. A declared cast is
enclosed by exactly that, so a cast left out shows as well as one added. A step of `compute` may
also keep more precision, so it takes [lo, hi] to the hull of [lo, hi] and its rounding. A sum in
any order errs at most (1 + u)^roundings - 1 times the sum of magnitudes (Higham 2002, section 4.2),
nothing where all partial sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from ..contract import PrecisionContract, depth
from ..formats import FORMATS, FP32, Format, overflows, round_to
from ..operations import operation_called
from . import interval
from .exact import ExactArithmetic, Shared
from .interval import Interval
from .reduction import Reduction, sum_of

Tensor = torch.Tensor

# Online softmax (Milakov & Gimelshein 2018) rescales once a block of keys; kernels take 16 or more.
RESCALED_BLOCK = 16


class EnclosureArithmetic(ExactArithmetic):
    """Exact arithmetic widened at every step by what the contract lets an implementation err."""

    def __init__(
        self,
        contract: PrecisionContract,
        work: Format | None = None,
        shared: Shared | None = None,
    ) -> None:
        super().__init__(shared)
        self.contract = contract
        self.storage, self.accumulate = FORMATS[contract.storage], FORMATS[contract.accumulate]
        rounds_inputs = "inputs" in contract.casts
        self.compute = FORMATS[contract.compute]
        self.work = work or (self.accumulate if rounds_inputs else self.compute)
        self._any_order = contract.order == "any"

    def given(self, x: Tensor) -> Interval:
        return self._flushed(super().given(x), self.work)

    def constant(self, value: float, *, exact: bool = True) -> Interval:
        return self._rounded(super().constant(value, exact=exact))

    def declares(self, point: str) -> bool:
        return point in self.contract.casts

    def cast(self, v: Interval, point: str) -> Interval:
        """At "output" nothing yet: the oracle looks at the result before its last rounding too."""
        if point == "output" or point not in self.contract.casts:
            return v
        if point in operation_called(self.contract.op).alternatives and self._any_order:
            # A running maximum may stand in for the last one: rounded in another binade.
            error = v.magnitude() * self.storage.unit_roundoff + self.storage.smallest_subnormal
            return Interval((v.lo - error).clamp(min=0.0), v.hi + error)
        return self._cast_to(v, self.storage)

    def output(self, v: Interval) -> tuple[Interval, Tensor]:
        """The last rounding: the numbers permitted (lo > hi for none), and where NaN is, too."""
        fmt = self.contract.output_format
        if self.contract.overflow_in(fmt) != "nan":
            return self._cast_to(v, fmt), torch.zeros_like(v.lo, dtype=torch.bool)
        over_lo, over_hi = overflows(v.lo, fmt), overflows(v.hi, fmt)
        none = (over_lo & (v.lo > 0)) | (over_hi & (v.hi < 0))
        inside = self._flushed(v.map(lambda end: round_to(end, fmt, overflow="saturate")), fmt)
        lo, hi = inside.lo.masked_fill(none, torch.inf), inside.hi.masked_fill(none, -torch.inf)
        return Interval(lo, hi), over_lo | over_hi

    def in_format(self, name: str) -> EnclosureArithmetic:
        assert name == "angles", name
        fmt = self.contract.angles
        return EnclosureArithmetic(self.contract, FORMATS[fmt] if fmt else self.work)

    def convert(self, v: Interval) -> Interval:
        return self._rounded(v)

    def either(self, *forms: Callable[[], Interval]) -> Interval:
        first, *others = (form() for form in forms)
        for other in others:
            first = interval.hull(first, other)
        return first

    def exp(self, v: Interval) -> Interval:
        """Through base 2 the argument meets two more roundings."""
        slack = self._relative(v, 2.0)
        return super().exp(Interval(v.lo - slack, v.hi + slack))

    def erf(self, v: Interval) -> Interval:
        """In ULP of 1: vectorised libraries compute 1 - erfc (Abramowitz & Stegun 7.1.26)."""
        result = super().erf(v)
        slack = 2 * self.contract.function_ulp * self.work.unit_roundoff
        return Interval(result.lo - slack, result.hi + slack)

    def log(self, v: Interval) -> Interval:
        """Through base 2 the result meets two more roundings."""
        result = super().log(v)
        slack = self._relative(result, 2.0)
        return Interval(result.lo - slack, result.hi + slack)

    def sum(self, v: Interval, *, updates: int = 0, rescaled: bool = False) -> Interval:
        if self.contract.order == "sequential":
            return self._rounded(self._chain(slices(v, -1)))
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
        if "inputs" in self.contract.casts:
            a, b = (v.map(lambda end: self._cast_end(end, self.compute)) for v in (a, b))
        if self._any_order:
            return self._reduced(self._dot_of(a, b, bias), updates=updates, rescaled=rescaled)
        if self.contract.order == "sequential":
            total = self._rounded(self._chain(self._products(a, b)))
        else:
            total = self._reduced(self._dot_of(a, b, None), updates=updates, rescaled=rescaled)
        return total if bias is None else self.add(total, bias)

    def scaled_deviation(
        self, x: Interval, mean: Interval, scale: Interval, offset: Interval | None = None
    ) -> Interval:
        deviation = super().scaled_deviation(x, mean, scale, offset)
        if self.declares("scale") and self.declares("normalized"):
            return deviation
        products = (x.magnitude() + mean.magnitude()) * scale.magnitude()
        if offset is not None:
            products = products + mean.magnitude() * scale.magnitude() + offset.magnitude()
        products = products.masked_fill(products > self.work.largest, torch.nan)  # inf - inf
        error = products * self.work.unit_roundoff * 1.01 + 2 * self.work.smallest_subnormal
        return Interval(deviation.lo - error, deviation.hi + error)

    def _cast_to(self, v: Interval, fmt: Format) -> Interval:
        return self._flushed(v.map(lambda end: self._cast_end(end, fmt)), fmt)

    def _cast_end(self, end: Tensor, fmt: Format) -> Tensor:
        past = self.contract.overflow_in(fmt)
        return nearest(end, fmt) if past == "inf" else round_to(end, fmt, overflow=past)

    def _flushed(self, v: Interval, fmt: Format) -> Interval:
        """With 0 for any subnormal inside, where the contract lets them go."""
        if not self.contract.may_flush:
            return v
        tiny = fmt.smallest_normal
        return Interval(
            v.lo.masked_fill((v.lo > 0) & (v.lo < tiny), 0.0),
            v.hi.masked_fill((v.hi < 0) & (v.hi > -tiny), 0.0),
        )

    def _rounded(self, v: Interval) -> Interval:
        """To nearest in the working format, or not at all."""
        lo, hi = nearest(v.lo, self.work), nearest(v.hi, self.work)
        hull = Interval(torch.minimum(v.lo, lo), torch.maximum(v.hi, hi))
        return self._flushed(hull, self.work)

    def _function(self, v: Interval, argument: Interval | None = None, at: float = 0.0) -> Interval:
        error = self._relative(v, 2 * self.contract.function_ulp)
        error = error + self.contract.function_ulp * self.work.smallest_subnormal
        if argument is not None:
            exact = ((argument.lo == at) & (argument.hi == at)) | (argument.hi == -torch.inf)
            error = error.masked_fill(exact, 0.0)
        lo = torch.where(v.lo >= 0, (v.lo - error).clamp(min=0.0), v.lo - error)
        hi = torch.where(v.hi <= 0, (v.hi + error).clamp(max=0.0), v.hi + error)
        hi = torch.where(hi > self.work.largest, torch.inf, hi)
        lo = torch.where(lo < -self.work.largest, -torch.inf, lo)
        return self._flushed(Interval(lo, hi), self.work)

    def _relative(self, v: Interval, roundings: float) -> Tensor:
        size = v.magnitude()
        return torch.where(size.isfinite(), size, 0.0) * (
            roundings * self.work.unit_roundoff * 1.01
        )

    def _reduced(self, r: Reduction, *, updates: int, rescaled: bool) -> Interval:
        any_order = self._any_order
        acc, work = self.accumulate, self.work
        additions = (r.nonzero - 1).clamp(0, depth(self.contract.order, r.n)).to(torch.float64)
        enters = acc.precision < work.precision or acc.smallest_subnormal > work.smallest_subnormal
        forms_products = r.rounds_products(work)
        other = float(updates if any_order else 0) + forms_products
        if rescaled and any_order:
            blocks = -(-r.n // RESCALED_BLOCK) - 1
            other += blocks * (2 * self.contract.function_ulp + 1)
        growth = torch.expm1((additions + enters) * acc.unit_roundoff + other * work.unit_roundoff)
        error = r.magnitude * growth * (1 + 2.0**-40)
        if other:
            error = error + r.nonzero * (acc.smallest_subnormal + work.smallest_subnormal)
        if self.contract.may_flush:
            error = error + r.nonzero * (2 * max(acc.smallest_normal, work.smallest_normal))
        if enters:
            error = error + r.nonzero * acc.smallest_subnormal
        if not (updates and any_order) and not (rescaled and any_order and r.n > RESCALED_BLOCK):
            exact = r.is_exact(acc)
            if self.contract.may_flush:
                exact &= r.grid >= max(acc.smallest_normal, work.smallest_normal)
            if not forms_products:
                error = error.masked_fill(exact, 0.0)
        total = interval.widened(r.total, error)
        merged = bool(updates) and any_order
        return self._rounded(self._overflowed(total, r, error, merged=merged))

    def _overflowed(
        self, total: Interval, r: Reduction, error: Tensor, *, merged: bool
    ) -> Interval:
        """Where a partial sum may leave the accumulator: infinite, or with both signs no claim.

        Nor where partial results may be `merged` by a formula, in which infinity meets 0 (Chan,
        Golub and LeVeque 1983).
        """
        lo = torch.where(r.nonnegative, total.lo.clamp(min=0.0), total.lo)
        over = (r.magnitude + error > self.accumulate.largest) & (r.nonzero > 1)
        mixed = over if merged else over & ~r.nonnegative
        hi = total.hi.masked_fill(over, torch.inf)
        return Interval(lo.masked_fill(mixed, torch.nan), hi.masked_fill(mixed, torch.nan))

    def _chain(self, terms: Iterator[Interval]) -> Interval:
        """Every partial sum of an ascending chain, rounded to the accumulator.

        A term wider than the accumulator may be rounded to it before it is added.
        """
        total: Interval | None = None
        for term in terms:
            loaded = term.map(lambda end: nearest(end, self.accumulate))
            if total is None:
                total = loaded
                continue
            if self.accumulate.precision < self.work.precision:
                term = interval.hull(term, loaded)
            total = interval.add(total, term).map(lambda end: nearest(end, self.accumulate))
        assert total is not None
        return total

    def _products(self, a: Interval, b: Interval) -> Iterator[Interval]:
        for column, row in zip(slices(a, -1), slices(b, -2), strict=True):
            yield self.mul(column, row)


def slices(v: Interval, axis: int) -> Iterator[Interval]:
    """v cut into pieces of size 1 along an axis."""
    lows = v.lo.tensor_split(v.lo.shape[axis], axis)
    highs = lows if v.is_point else v.hi.tensor_split(v.lo.shape[axis], axis)
    for lo, hi in zip(lows, highs, strict=True):
        yield Interval(lo, hi)


def nearest(x: Tensor, fmt: Format) -> Tensor:
    """`round_to` to nearest even; fp32 by the machine's own conversion, which rounds once."""
    if fmt is FP32:
        return x.to(torch.float32).to(torch.float64)
    return round_to(x, fmt)
