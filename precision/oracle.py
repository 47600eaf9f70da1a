"""The verdict: does this output lie within what the contract permits?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from . import notebook
from .arithmetic.enclosure import EnclosureArithmetic
from .arithmetic.exact import ExactArithmetic, Shared
from .arithmetic.interval import Interval
from .binding import output_of, renamed
from .contract import PrecisionContract
from .formats import FORMATS, Format, overflows, round_to
from .operations import InputsError, operation_called, validate_inputs
from .ulp import ulp, ulp_error

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Enclosure:
    """The outputs that a contract permits, elementwise, all fp64 of the output's shape.

    lo, hi: the smallest and largest permitted results; NaN where the contract says nothing (0/0,
    sums that may overflow with both signs), lo > hi where only NaN is permitted. unrounded: what is
    permitted before the last rounding. exact: the real value; error: a bound on how far `exact`
    itself may be off. nan: where NaN is permitted (bool): overflow="nan", and a value may be past
    the largest number.
    """

    lo: Tensor
    hi: Tensor
    unrounded: Interval
    exact: Tensor
    error: Tensor
    nan: Tensor

    @property
    def unclaimed(self) -> Tensor:
        """Returns where the contract says nothing."""
        return self.lo.isnan() | self.hi.isnan()


@dataclass(frozen=True)
class Verdict:
    """The findings of `check`.

    Attributes:
        ok: False only where a result lies provably outside of what the contract permits, or where
            there are results and the contract claims nothing of any.
        utilisation: The largest share that any result needed of the room which the contract leaves
            before the last rounding; 0 if all are correct roundings of the real value, above 1 (or
            inf) exactly if there are violations.
        bias_ulp: Mean of (|actual| - |real value|) in ULP of the output format; NaN where no
            element's real value is known to 1/64 ULP.
        where: Index of the worst element (None for no elements).
        reason: One line: how many results were claimed, what is wrong at the worst one, or how
            close it came.
        violations, unclaimed, elements: Counts: outside; nothing said about them; all.
        max_ulp_error: The largest |actual - real value| in ULP of the output format.
    """

    ok: bool
    utilisation: float
    bias_ulp: float
    where: tuple[int, ...] | None
    reason: str
    violations: int
    unclaimed: int
    elements: int
    max_ulp_error: float

    @property
    def claimed(self) -> int:
        """The number of results that the contract says something about."""
        return self.elements - self.unclaimed

    def __bool__(self) -> bool:
        return self.ok

    def _repr_html_(self) -> str:
        """The verdict in a notebook."""
        head = "within its contract" if self.ok else "outside of its contract"
        share = f"{self.utilisation:.3g} of the room used at most"
        counts = f"{self.violations:,} of {self.elements:,} values outside"
        columns = ("values outside", "room used", "largest error", "bias", "worst at")
        error, bias = f"{self.max_ulp_error:.3g} ULP", f"{self.bias_ulp:+.3g} ULP"
        row = (counts, share, error, bias, str(list(self.where or ())))
        return notebook.output(
            notebook.line(head, "title good" if self.ok else "title bad"),
            notebook.line(self.reason, "soft"),
            notebook.table(columns, [row]),
        )


def enclosure(inputs: Mapping[str, Any], contract: PrecisionContract) -> Enclosure:
    """All results that the contract permits for these inputs.

    Raises InputsError for inputs the operation cannot take or the contract's formats cannot hold.
    """
    prepared = validate_inputs(contract.op, inputs)
    _check_held(prepared, contract)
    program = operation_called(contract.op).program
    prepared = {name: _widened(value) for name, value in prepared.items()}
    shared: Shared = {}
    arithmetic = EnclosureArithmetic(contract, shared=shared)
    permitted: Interval = program(arithmetic, prepared)
    real: Interval = program(ExactArithmetic(shared), prepared)
    exact = real.lo + (real.hi - real.lo) / 2
    exact = torch.where(real.lo == real.hi, real.lo, exact)
    error = torch.maximum(real.hi - exact, exact - real.lo)
    final, nan = arithmetic.output(permitted)
    return Enclosure(final.lo, final.hi, permitted, exact, error, nan)


def _widened(value: Any) -> Any:
    """Floats in fp64, once for both arithmetics."""
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.float64) if floats else value


def check(
    actual: Any,
    inputs: Mapping[str, Any],
    contract: PrecisionContract,
    *,
    names: Mapping[str, str] | None = None,
    result: int | None = None,
) -> Verdict:
    """Judges an output of `contract.op` on `inputs`; fails only on a proven violation.

    `actual` has the operation's output shape and any dtype that can hold the output format, one of
    integers for codes; in a wider dtype it must still hold values of that format; of several
    tensors it is the one at `result`. `names` are the operation's by those in `inputs`, where these
    are a kernel's: {"input": "x"}. Raises InputsError for inputs as `enclosure` does and for an
    `actual` of another shape or dtype.
    """
    bound = renamed(inputs, names)
    return judge(output_of(actual, contract, result), enclosure(bound, contract), contract)


def judge(actual: Tensor, allowed: Enclosure, contract: PrecisionContract) -> Verdict:
    """`check` with a given enclosure of the inputs under this contract."""
    if not isinstance(actual, Tensor) or actual.is_complex() or actual.dtype == torch.bool:
        raise InputsError(f"{contract.op}: the output to judge must be a tensor of real numbers")
    if actual.shape != allowed.lo.shape:
        raise InputsError(
            f"{contract.op}: the output to judge has shape {list(actual.shape)}, these inputs give "
            f"{list(allowed.lo.shape)}"
        )
    return _judge(actual.detach().to("cpu", torch.float64), allowed, contract)


def _judge(y: Tensor, allowed: Enclosure, contract: PrecisionContract) -> Verdict:
    fmt = contract.output_format
    if y.numel() == 0:
        return Verdict(True, 0.0, math.nan, None, "no elements", 0, 0, 0, 0.0)
    unclaimed = allowed.unclaimed
    outside = ~((y >= allowed.lo) & (y <= allowed.hi)) | (round_to(y, fmt) != y)
    outside = torch.where(y.isnan(), ~allowed.nan, outside) & ~unclaimed
    right = unclaimed | _overflowed(y, allowed, contract)
    share = _share(y, allowed, fmt).masked_fill(right, 0.0)
    share = torch.where(outside, share.clamp(min=1 + 2.0**-52), share.clamp(max=1.0))
    error = ulp_error(y, allowed.exact, fmt).masked_fill(right, 0.0)
    worst = int(share.flatten().argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), y.shape))
    violations = int(outside.sum())
    return Verdict(
        ok=violations == 0 and not bool(unclaimed.all()),
        utilisation=float(share[where]),
        bias_ulp=_bias(y, allowed, fmt),
        where=where,
        reason=_counts(unclaimed, violations) + _reason(y, allowed, contract, where, violations),
        violations=violations,
        unclaimed=int(unclaimed.sum()),
        elements=y.numel(),
        max_ulp_error=float(error.max()),
    )


def _overflowed(y: Tensor, allowed: Enclosure, contract: PrecisionContract) -> Tensor:
    """Where the real value is past the largest number and y is what that gives."""
    fmt = contract.output_format
    past = contract.overflow_in(fmt)
    given = round_to(allowed.exact, fmt, overflow=past)
    return overflows(allowed.exact, fmt) & ((y == given) | (y.isnan() & given.isnan()))


def _share(y: Tensor, allowed: Enclosure, fmt: Format) -> Tensor:
    """How far the value before the last rounding was off at least, over how far it may be."""
    rounding = torch.minimum(ulp(y, fmt), ulp(allowed.exact, fmt)) / 2
    distance = ((y - allowed.exact).abs() - rounding.nan_to_num(0.0)).clamp(min=0.0)
    above = allowed.unrounded.hi - allowed.exact
    room = torch.where(y > allowed.exact, above, allowed.exact - allowed.unrounded.lo)
    share = torch.where(room > 0, distance / room, math.inf)
    share = share.masked_fill((distance == 0) | room.isinf() | (y == allowed.exact), 0.0)
    return torch.where(share.isnan(), math.inf, share)


def _bias(y: Tensor, allowed: Enclosure, fmt: Format) -> float:
    unit = ulp(allowed.exact, fmt)
    known = y.isfinite() & (allowed.error <= unit / 64) & ~allowed.unclaimed & ~allowed.nan
    signed = (y.abs() - allowed.exact.abs()) / unit
    return float(signed[known].mean()) if bool(known.any()) else math.nan


def _reason(
    y: Tensor,
    allowed: Enclosure,
    contract: PrecisionContract,
    where: tuple[int, ...],
    violations: int,
) -> str:
    value, fmt = y[where].item(), contract.output_format
    lo, hi, exact = (float(t[where]) for t in (allowed.lo, allowed.hi, allowed.exact))
    at = f"{contract.op}{list(where)} = {value!r}"
    errs = float(ulp_error(y[where], allowed.exact[where], fmt))
    truth = f"real value {exact!r}, {errs:.3g} ULP of {fmt.name} away"
    if bool(allowed.unclaimed.all()):
        return f"choose inputs whose results the formats can hold; {at}"
    if not violations:
        return f"closest to its bound is {at} ({truth})"
    permitted = f"[{lo!r}, {hi!r}]" if lo <= hi else "NaN"
    if math.isnan(value):
        return f"{at} where {permitted} is permitted ({truth})"
    if lo <= value <= hi:
        return f"{at} is no {fmt.name} number: the cast to {fmt.name} is missing ({truth})"
    return f"{at} lies outside of the permitted {permitted} ({truth})"


def _counts(unclaimed: Tensor, violations: int) -> str:
    """How many results were claimed and how many broke the claim, up to the worst one's account."""
    rest = int(unclaimed.sum())
    claimed = unclaimed.numel() - rest
    if not claimed:
        return f"the contract claims nothing of any of the {rest} results: "
    results, others = ("claimed results", f" ({rest} unclaimed)") if rest else ("results", "")
    if violations:
        return f"{violations} of {claimed} {results} break the contract{others}; "
    return f"all {claimed} {results} permitted{others}; "


def _check_held(prepared: Mapping[str, Any], contract: PrecisionContract) -> None:
    """Inputs are exact in the wider of storage and compute, or they would need a cast."""
    formats = (FORMATS[contract.storage], FORMATS[contract.compute])
    widest = max(formats, key=lambda fmt: fmt.precision)
    for name, x in prepared.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            continue
        values = x.to(torch.float64)
        lost = round_to(values, widest) != values
        if bool(lost.any()):
            index = [int(i) for i in lost.nonzero()[0]]
            raise InputsError(
                f"{contract.op}: {name}{index} = {values[tuple(index)].item()!r} is no "
                f"{widest.name} number, which the contract's storage and compute hold at most: "
                "cast the inputs first, or declare wider formats"
            )
