"""The arithmetic that a program of an operation may ask of its numbers.

Each operation is written once, in its family's program.py, against this interface; the class that
implements it decides what the program means: the real value (exact.py), the set of all results that
a contract permits (enclosure.py), or one run in the contract's formats (emulation.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

V = TypeVar("V")

Tensor = torch.Tensor


class Arithmetic(ABC, Generic[V]):
    """Arithmetic on values V, each of them a tensor of numbers.

    Every operation rounds as its implementation says; `cast` rounds only at declared points.
    Shapes broadcast as torch's do; `sum` keeps the last axis with size 1.
    """

    @abstractmethod
    def given(self, x: Tensor) -> V:
        """An input of the operation, taken exactly."""

    @abstractmethod
    def constant(self, value: float, *, exact: bool = True) -> V:
        """A real number; with exact=False `value` is only the fp64 number nearest to it."""

    @abstractmethod
    def declares(self, point: str) -> bool:
        """Whether values are rounded at this cast point."""

    @abstractmethod
    def cast(self, v: V, point: str) -> V:
        """Rounds to storage (at "output": to the output format) where the point is declared."""

    def may_cast(self, v: V, point: str) -> V:
        """Rounded at this cast point, or left as it is: what a fused implementation decides."""
        return self.either(lambda: self.cast(v, point), lambda: v)

    @abstractmethod
    def in_format(self, name: str) -> Arithmetic[V]:
        """The same arithmetic computing in another format."""

    @abstractmethod
    def convert(self, v: V) -> V:
        """A value computed in another format, rounded into this one."""

    @abstractmethod
    def either(self, *forms: Callable[[], V]) -> V:
        """The same real value by any of these ways of computing it; the first is the usual one."""

    @abstractmethod
    def shape(self, fn: Callable[..., Tensor], *values: V) -> V:
        """Moves elements about: `fn` may view, expand, slice or concatenate, but not compute."""

    @abstractmethod
    def where(self, mask: Tensor, v: V, otherwise: float) -> V:
        """v where the mask is set, an exact number elsewhere."""

    @abstractmethod
    def neg(self, v: V) -> V: ...

    @abstractmethod
    def add(self, a: V, b: V) -> V: ...

    @abstractmethod
    def mul(self, a: V, b: V) -> V: ...

    @abstractmethod
    def div(self, a: V, b: V) -> V: ...

    @abstractmethod
    def square(self, v: V) -> V: ...

    @abstractmethod
    def sqrt(self, v: V) -> V: ...

    @abstractmethod
    def rsqrt(self, v: V) -> V: ...

    @abstractmethod
    def exp(self, v: V) -> V: ...

    @abstractmethod
    def log(self, v: V) -> V: ...

    @abstractmethod
    def tanh(self, v: V) -> V: ...

    @abstractmethod
    def erf(self, v: V) -> V: ...

    @abstractmethod
    def erfc(self, v: V) -> V: ...

    @abstractmethod
    def cos(self, v: V) -> V: ...

    @abstractmethod
    def sin(self, v: V) -> V: ...

    @abstractmethod
    def power(self, base: float, exponent: V) -> V:
        """base ** exponent for base >= 1."""

    @abstractmethod
    def shifted(self, v: V) -> tuple[V, V]:
        """v - max(v) over the last axis, and max(v): no order, no rounding of the maximum.

        Where all are -inf the maximum counts as 0, so that their exponentials are 0.
        """

    @abstractmethod
    def leads(self, v: V, chosen: Tensor) -> Tensor:
        """Whether all chosen values of the last axis, kept with size 1, are above all others of it,
        however they were rounded."""

    @abstractmethod
    def sum(self, v: V, *, updates: int = 0, rescaled: bool = False) -> V:
        """Over the last axis in the accumulator's format.

        updates: roundings a term may meet besides the additions (Welford's mean). rescaled: terms
        may be taken relative to a running maximum and rescaled (online softmax).
        """

    @abstractmethod
    def dot(
        self, a: V, b: V, bias: V | None = None, *, updates: int = 0, rescaled: bool = False
    ) -> V:
        """a [.., m, k] @ b [.., k, n] (+ bias) in the accumulator's format."""

    def sum_of_squares(self, v: V, *, updates: int = 0) -> V:
        """Over the last axis, as `sum`."""
        return self.sum(self.square(v), updates=updates)

    @abstractmethod
    def scaled_deviation(self, x: V, mean: V, scale: V, offset: V | None = None) -> V:
        """(x - mean) * scale + offset, or x * scale + (offset - mean * scale)."""

    def sub(self, a: V, b: V) -> V:
        return self.add(a, self.neg(b))
