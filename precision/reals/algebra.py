"""The few operations on arrays of real numbers that the definitions are written in."""

from __future__ import annotations

from typing import Any, Protocol

import torch

Array = Any
"""Supports + - * / with its kind and with floats, unary -, indexing and `shape`."""


class Algebra(Protocol):
    """Reductions and sums run over the last axis and keep it as 1."""

    def lift(self, x: torch.Tensor | float) -> Array:
        """The exact values of a tensor or a number."""
        ...

    def matmul(self, a: Array, b: Array) -> Array: ...

    def sum(self, x: Array) -> Array: ...

    def peak(self, x: Array) -> Array:
        """The largest along the last axis, or nearly: a shift, on which no true value depends.

        0 where all are -inf, which no shift takes anywhere.
        """
        ...

    def exp(self, x: Array) -> Array: ...

    def log(self, x: Array) -> Array: ...

    def sqrt(self, x: Array) -> Array: ...

    def tanh(self, x: Array) -> Array: ...

    def erfc(self, x: Array) -> Array: ...

    def cos(self, x: Array) -> Array: ...

    def sin(self, x: Array) -> Array: ...

    def power(self, base: float, exponent: Array) -> Array: ...

    def constant(self, name: str) -> Array:
        """pi."""
        ...

    def hide(self, x: Array, visible: torch.Tensor) -> Array:
        """-infinity where `visible` (bool, broadcastable) is False."""
        ...

    def transpose(self, x: Array) -> Array:
        """Swaps the last two axes."""
        ...

    def repeat(self, x: Array, times: int) -> Array:
        """Each entry of the third axis from the end `times` times in a row."""
        ...

    def concatenate(self, parts: list[Array]) -> Array:
        """Along the last axis."""
        ...
