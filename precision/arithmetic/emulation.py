"""One run of a program in the contract's formats, or in a faulty variation of them.

Values are fp64 tensors that hold numbers of the working format. Between formats of at most 24 bits
rounding fp64's result once more is the same as rounding once (Figueroa 1995), fused multiply-adds
apart, which round to odd first (Boldo & Melquiond 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from ..contract import PrecisionContract
from ..formats import FORMATS, FP32, FP64, Format, Overflow, Rounding, round_to
from .interface import Arithmetic
from .orders import dot_in_order, sum_in_order

Tensor = torch.Tensor


@dataclass(frozen=True)
class Execution:
    """The rules an implementation really follows: its contract's, unless a fault bends them.

    Attributes:
        rounding: Of casts to storage and output.
        via: A format that casts round to first.
        operands: A format that the operands of dot products are rounded to first.
        fused: Sums of products are chains of fused multiply-adds.
        wide_sums: A sum stays in the accumulator's format until the step that uses it rounds, as in
            a kernel that divides by n before it stores a mean.
        flush: Subnormals of compute and storage become zeros, coming in and going out.
        overflow: What casts make of values past a format's largest number; None: as hardware.
    """

    compute: Format
    accumulate: Format
    storage: Format
    output: Format
    angles: Format
    casts: frozenset[str]
    order: str
    rounding: Rounding = "nearest_even"
    via: Format | None = None
    operands: Format | None = None
    fused: bool = False
    wide_sums: bool = False
    flush: bool = False
    overflow: Overflow | None = None

    @classmethod
    def of(cls, contract: PrecisionContract) -> Execution:
        compute, accumulate = FORMATS[contract.compute], FORMATS[contract.accumulate]
        rounds_inputs = "inputs" in contract.casts
        work = accumulate if rounds_inputs else compute
        return cls(
            compute=work,
            accumulate=accumulate,
            storage=FORMATS[contract.storage],
            output=contract.output_format,
            angles=FORMATS[contract.angles] if contract.angles else work,
            casts=frozenset(contract.casts),
            order=contract.order,
            operands=compute if rounds_inputs else None,
            overflow=contract.overflow,
        )

    def overflow_in(self, fmt: Format) -> Overflow:
        """Returns what a cast to `fmt` makes of values past its largest number."""
        return self.overflow or fmt.overflow


@dataclass(frozen=True)
class Emulation(Arithmetic[Tensor]):
    """Every step rounded as the execution says; sums in its order ("any": in pairs)."""

    execution: Execution
    work: Format = field(default=FP32)

    @classmethod
    def of(cls, execution: Execution) -> Emulation:
        return cls(execution, execution.compute)

    def given(self, x: Tensor) -> Tensor:
        return self._rounded(x.to(torch.float64))

    def constant(self, value: float, *, exact: bool = True) -> Tensor:
        return self._rounded(torch.tensor(value, dtype=torch.float64))

    def declares(self, point: str) -> bool:
        return point in self.execution.casts

    def cast(self, v: Tensor, point: str) -> Tensor:
        e = self.execution
        if point not in e.casts and point != "output":
            return v
        target = e.output if point == "output" else e.storage
        if target.precision >= self.work.precision and not e.flush:
            return round_to(v, target, overflow=e.overflow_in(target))
        if e.via is not None:
            v = round_to(v, e.via)
        past = e.overflow_in(target)
        return round_to(v, target, e.rounding, flush_subnormals=e.flush, overflow=past)

    def in_format(self, name: str) -> Emulation:
        assert name == "angles", name
        return replace(self, work=self.execution.angles)

    def convert(self, v: Tensor) -> Tensor:
        return self._rounded(v)

    def either(self, *forms: Callable[[], Tensor]) -> Tensor:
        return forms[0]()

    def shape(self, fn: Callable[..., Tensor], *values: Tensor) -> Tensor:
        return fn(*values)

    def where(self, mask: Tensor, v: Tensor, otherwise: float) -> Tensor:
        return torch.where(mask, v, otherwise)

    def neg(self, v: Tensor) -> Tensor:
        return -v

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._rounded(a + b)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._rounded(a * b)

    def div(self, a: Tensor, b: Tensor) -> Tensor:
        return self._rounded(a / b)

    def square(self, v: Tensor) -> Tensor:
        return self._rounded(v * v)

    def sqrt(self, v: Tensor) -> Tensor:
        return self._rounded(v.sqrt())

    def rsqrt(self, v: Tensor) -> Tensor:
        return self._rounded(1 / v.sqrt())

    def exp(self, v: Tensor) -> Tensor:
        return self._rounded(v.exp())

    def log(self, v: Tensor) -> Tensor:
        return self._rounded(v.log())

    def tanh(self, v: Tensor) -> Tensor:
        return self._rounded(v.tanh())

    def erf(self, v: Tensor) -> Tensor:
        return self._rounded(v.erf())

    def erfc(self, v: Tensor) -> Tensor:
        return self._rounded(torch.special.erfc(v))

    def cos(self, v: Tensor) -> Tensor:
        return self._rounded(v.cos())

    def sin(self, v: Tensor) -> Tensor:
        return self._rounded(v.sin())

    def power(self, base: float, exponent: Tensor) -> Tensor:
        return self._rounded(torch.pow(base, exponent))

    def shifted(self, v: Tensor) -> tuple[Tensor, Tensor]:
        maximum = v.amax(-1, keepdim=True)
        maximum = maximum.masked_fill(maximum == -torch.inf, 0.0)
        return self._rounded(v - maximum), maximum

    def leads(self, v: Tensor, chosen: Tensor) -> Tensor:
        least = v.masked_fill(~chosen, torch.inf).amin(-1, keepdim=True)
        return least > v.masked_fill(chosen, -torch.inf).amax(-1, keepdim=True)

    def sum(self, v: Tensor, *, updates: int = 0, rescaled: bool = False) -> Tensor:
        e = self.execution
        total = sum_in_order(v, e.order, e.accumulate, flush=e.flush)
        return total if e.wide_sums else self._rounded(total)

    def dot(
        self,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None = None,
        *,
        updates: int = 0,
        rescaled: bool = False,
    ) -> Tensor:
        e = self.execution
        if e.operands is not None:
            past = e.overflow_in(e.operands)
            a, b = (round_to(x, e.operands, overflow=past) for x in (a, b))
        total = self._rounded(
            dot_in_order(a, b, e.order, self.work, e.accumulate, fused=e.fused, flush=e.flush)
        )
        return total if bias is None else self.add(total, bias)

    def sum_of_squares(self, v: Tensor, *, updates: int = 0) -> Tensor:
        if not self.execution.fused:
            return super().sum_of_squares(v)
        return self.dot(v.unsqueeze(-2), v.unsqueeze(-1)).squeeze(-1)

    def scaled_deviation(
        self, x: Tensor, mean: Tensor, scale: Tensor, offset: Tensor | None = None
    ) -> Tensor:
        deviation = self.mul(self.sub(x, mean), scale)
        return deviation if offset is None else self.add(deviation, offset)

    def _rounded(self, v: Tensor) -> Tensor:
        if self.work is FP64:
            return v
        if self.work is FP32 and not self.execution.flush:
            return v.to(torch.float32).to(torch.float64)
        return round_to(v, self.work, flush_subnormals=self.execution.flush)
