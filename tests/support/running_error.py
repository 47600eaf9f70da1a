"""Numbers with a bound of what fp32 makes of them, operation by operation (Wilkinson 1963).

`value` is what exact arithmetic has, `error` bounds how far any fp32 evaluation in that order may
be from it: what its operands erred by, and one rounding of what it then found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
U = 2.0**-24
LIBRARY = 2 * U
"""Relative error of torch's vectorized exp and log1p, 1 ULP (Sleef's _u10)."""


@dataclass(frozen=True)
class Rounded:
    """An array of numbers, each with its bound."""

    value: F64
    error: F64

    @classmethod
    def exact(cls, x: npt.ArrayLike) -> Rounded:
        """Takes numbers that fp32 holds."""
        value = np.asarray(x, dtype=np.float64)
        return cls(value, np.zeros_like(value))

    @classmethod
    def constant(cls, x: float) -> Rounded:
        """Takes a number that fp32 rounds."""
        return cls(np.float64(x) * np.ones(()), np.abs(x) * U * np.ones(()))

    def __add__(self, other: Rounded) -> Rounded:
        return _rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Rounded) -> Rounded:
        return self + -other

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __mul__(self, other: Rounded) -> Rounded:
        cross = np.abs(self.value) * other.error + np.abs(other.value) * self.error
        return _rounded(self.value * other.value, cross + self.error * other.error)

    def __truediv__(self, other: Rounded) -> Rounded:
        quotient = self.value / other.value
        least = np.abs(other.value) - other.error
        return _rounded(quotient, (self.error + np.abs(quotient) * other.error) / least)

    def exp(self) -> Rounded:
        value = np.exp(self.value)
        return _rounded(value, value * np.expm1(self.error), LIBRARY)

    def log1p(self) -> Rounded:
        """For numbers of 0 or more, where its slope is at most 1."""
        return _rounded(np.log1p(self.value), self.error, LIBRARY)

    def sum(self, axis: int | None = None) -> Rounded:
        """In any order: each of n - 1 sums is at most the sum of all magnitudes."""
        n = self.value.size if axis is None else self.value.shape[axis]
        size = (np.abs(self.value) + self.error).sum(axis)
        grown = self.error.sum(axis) + (n - 1) * U * (1 + n * U) * size
        return Rounded(np.asarray(self.value.sum(axis)), np.asarray(grown))

    def where(self, kept: npt.NDArray[np.bool_], other: float = 0.0) -> Rounded:
        return Rounded(np.where(kept, self.value, other), np.where(kept, self.error, 0.0))

    def minimum(self, other: Rounded) -> Rounded:
        return self._of_both(np.minimum, other)

    def clip(self, low: float, high: float) -> Rounded:
        below, above = Rounded.constant(low), Rounded.constant(high)
        return self._of_both(np.maximum, below)._of_both(np.minimum, above)

    def _of_both(self, choose: Callable[[F64, F64], F64], other: Rounded) -> Rounded:
        return Rounded(choose(self.value, other.value), np.maximum(self.error, other.error))

    def __getitem__(self, key: object) -> Rounded:
        return Rounded(self.value[key], self.error[key])  # type: ignore[index]


def logistic_loss(gap: Rounded) -> tuple[Rounded, Rounded]:
    """-logsigmoid(gap) and its derivative, as torch computes both."""
    z = Rounded(-np.abs(gap.value), gap.error).exp()
    ahead = Rounded(np.minimum(gap.value, 0.0), np.where(gap.value < gap.error, gap.error, 0.0))
    one = Rounded.exact(np.ones_like(gap.value))
    share = z / (one + z)
    rest = one - share
    slope = Rounded(
        np.where(gap.value < 0, rest.value, share.value), np.maximum(rest.error, share.error)
    )
    return z.log1p() - ahead, -slope


def _rounded(value: F64, grown: F64, unit: float = U) -> Rounded:
    return Rounded(np.asarray(value), np.asarray(grown + unit * (np.abs(value) + grown)))
