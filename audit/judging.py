"""Contract verdicts on many pieces of an operation's output, added up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..precision.contract import PrecisionContract
from ..precision.oracle import Enclosure, enclosure, judge
from ..precision.ulp import ulp
from .result import UlpHistogram

_FINEST, _REACH = 32, 64
"""Histogram cells per ULP, and ULPs either side that cells cover."""

_COLUMNS = 8192
"""Columns of a product enclosed at a time: a vocabulary in fp64 intervals would not fit."""


@dataclass
class Worst:
    """The value that used the most of its permitted error, with what it came from.

    Attributes:
        where: Its index in `actual`, which may be a block of the columns that were judged.
    """

    address: str
    contract: PrecisionContract
    inputs: dict[str, Any]
    actual: torch.Tensor
    where: tuple[int, ...]
    utilisation: float
    violates: bool


@dataclass
class Tally:
    """Verdicts on one address so far."""

    address: str
    contract: PrecisionContract
    values: int = 0
    outside: int = 0
    unclaimed: int = 0
    utilisation: float = 0.0
    max_ulp: float = 0.0
    errors: UlpErrors = field(default_factory=lambda: UlpErrors())
    where: tuple[int, ...] = ()
    reason: str = ""
    worst: Worst | None = None

    def add(self, inputs: Mapping[str, Any], actual: torch.Tensor) -> None:
        """Judges one piece. Raises ValueError for inputs the contract cannot take."""
        for start, part, y in _parts(self.contract.op, inputs, actual):
            allowed = enclosure(part, self.contract)
            self._add(start, part, y, allowed)

    def _add(self, start: int, inputs: dict[str, Any], y: torch.Tensor, allowed: Enclosure) -> None:
        verdict = judge(y, allowed, self.contract)
        self.values += verdict.elements
        self.outside += verdict.violations
        self.unclaimed += verdict.unclaimed
        self.max_ulp = max(self.max_ulp, verdict.max_ulp_error)
        self.errors.add(y, allowed, self.contract)
        if verdict.where is not None and (
            self.worst is None or verdict.utilisation > self.utilisation
        ):
            self.utilisation, self.where = verdict.utilisation, _shifted(verdict.where, start)
            op, at = self.contract.op, list(verdict.where)
            reason = verdict.reason.replace(f"{op}{at}", f"{op}{list(self.where)}", 1)
            self.reason = "" if verdict.ok else reason
            self.worst = Worst(
                self.address,
                self.contract,
                inputs,
                y,
                verdict.where,
                verdict.utilisation,
                verdict.violations > 0,
            )


def _parts(
    op: str, inputs: Mapping[str, Any], actual: torch.Tensor
) -> Iterator[tuple[int, dict[str, Any], torch.Tensor]]:
    """A wide product in blocks of columns, each with its first column; anything else whole."""
    n = actual.shape[-1]
    if op != "matmul" or n <= _COLUMNS:
        yield 0, dict(inputs), actual
        return
    for start in range(0, n, _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        part = {**inputs, "b": inputs["b"][..., columns]}
        if inputs.get("bias") is not None:
            part["bias"] = inputs["bias"][columns]
        yield start, part, actual[..., columns]


def _shifted(where: tuple[int, ...], start: int) -> tuple[int, ...]:
    """An index into a block of columns as one into all of them."""
    return (*where[:-1], where[-1] + start) if where else where


@dataclass
class UlpErrors:
    """Signed errors (|computed| - |exact|) in ULP: a fine histogram; mean and spread of small ones.

    Larger errors than 1 ULP are cancellation's, and a few of them would be all of the mean.
    """

    cells: torch.Tensor = field(
        default_factory=lambda: torch.zeros(2 * _REACH * _FINEST + 2, dtype=torch.int64)
    )
    n: int = 0
    n_small: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, y: torch.Tensor, allowed: Enclosure, contract: PrecisionContract) -> None:
        """Takes the values whose exact result is known to 1/64 ULP and is not 0."""
        unit = ulp(allowed.exact, contract.output_format)
        value = y.double()
        known = (
            value.isfinite()
            & (allowed.exact != 0)
            & (allowed.error <= unit / 64)
            & ~allowed.lo.isnan()
        )
        exact = allowed.exact[known]
        # Toward zero is down, whatever the sign.
        self.count((value[known] - exact) * exact.sign() / unit[known])

    def count(self, errors: torch.Tensor) -> None:
        """Takes errors in ULP, fp64, away from zero positive."""
        small = errors[errors.abs() <= 1]
        self.n += errors.numel()
        self.n_small += small.numel()
        self.total += float(small.sum())
        self.squares += float((small * small).sum())
        cell = ((errors + _REACH) * _FINEST).floor().long().add_(1)
        self.cells += torch.bincount(cell.clamp_(0, len(self.cells) - 1), minlength=len(self.cells))

    def merge(self, other: UlpErrors) -> None:
        self.cells = self.cells + other.cells
        self.n += other.n
        self.n_small += other.n_small
        self.total += other.total
        self.squares += other.squares

    @property
    def bias(self) -> float | None:
        """The mean; None without errors of at most 1 ULP."""
        return self.total / self.n_small if self.n_small else None

    @property
    def z(self) -> float | None:
        """The mean over its standard error."""
        n, bias = self.n_small, self.bias
        if n < 2 or bias is None:
            return None
        variance = (self.squares - n * bias**2) / (n - 1)
        if variance <= 0:
            return math.copysign(math.inf, bias) if bias else 0.0
        return bias / math.sqrt(variance / n)

    def histogram(self, kind: str, format: str) -> UlpHistogram:
        """32 bins over the narrowest range of 1, 2, 4 ... ULP that holds 99.5% of the values."""
        inner = self.cells[1:-1]
        middle = _REACH * _FINEST
        limit = 1
        while limit < _REACH:
            held = int(inner[middle - limit * _FINEST : middle + limit * _FINEST].sum())
            if held >= 0.995 * self.n:
                break
            limit *= 2
        shown = inner[middle - limit * _FINEST : middle + limit * _FINEST]
        counts = shown.view(32, -1).sum(1).tolist()
        below = int(self.cells[: 1 + middle - limit * _FINEST].sum())
        above = self.n - below - sum(counts)
        bias, z = self.bias or 0.0, self.z or 0.0
        return UlpHistogram(kind, format, float(limit), tuple(counts), below, above, bias, z)
