"""The real numbers as Arb's balls: midpoint and proven radius (Johansson 2017, python-flint)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..extra import missing

BITS = 256

Balls = Any
"""A numpy array of dtype object, its entries flint.arb."""


@contextmanager
def working_precision(bits: int = BITS) -> Iterator[None]:
    """Arb's precision is a global of python-flint; ImportError says which extra brings it."""
    with _flint().ctx.workprec(bits):
        yield


def _flint() -> Any:
    try:
        import flint
    except ImportError as error:
        raise missing('method="arb"', "python-flint") from error
    return flint


def to_fp64(balls: Balls) -> tuple[torch.Tensor, torch.Tensor]:
    """Midpoints in fp64, and bounds on their distance from the true values."""
    arb = _flint().arb
    flat = list(np.asarray(balls, dtype=object).ravel())
    values = [float(ball.mid()) for ball in flat]
    # The float() of a bound may round it down: two steps of fp64 make up for that.
    errors = [
        float(abs(ball - arb(value)).upper()) * (1 + 2.0**-51)
        for ball, value in zip(flat, values, strict=True)
    ]
    shape = np.shape(balls)
    as_tensor = [torch.tensor(x, dtype=torch.float64).reshape(shape) for x in (values, errors)]
    return as_tensor[0], as_tensor[1]


class Arb:
    """Balls throughout; for small inputs (about 10^5 operations a second)."""

    def __init__(self) -> None:
        self._arb = _flint().arb
        self._exp = np.frompyfunc(lambda ball: ball.exp(), 1, 1)
        self._log = np.frompyfunc(lambda ball: ball.log(), 1, 1)
        self._sqrt = np.frompyfunc(lambda ball: ball.sqrt(), 1, 1)
        self._tanh = np.frompyfunc(lambda ball: ball.tanh(), 1, 1)
        self._erfc = np.frompyfunc(lambda ball: ball.erfc(), 1, 1)
        self._cos = np.frompyfunc(lambda ball: ball.cos(), 1, 1)
        self._sin = np.frompyfunc(lambda ball: ball.sin(), 1, 1)
        self._lift = np.frompyfunc(self._arb, 1, 1)

    def lift(self, x: torch.Tensor | float) -> Balls:
        values = torch.as_tensor(x, dtype=torch.float64).detach().numpy().astype(object)
        return self._array(self._lift(values))

    def _array(self, x: Any) -> Balls:
        return np.asarray(x, dtype=object)

    def matmul(self, a: Balls, b: Balls) -> Balls:
        return self._array(np.matmul(a, b))

    def sum(self, x: Balls) -> Balls:
        return self._array(x.sum(-1, keepdims=True))

    def peak(self, x: Balls) -> Balls:
        middle = np.frompyfunc(lambda ball: float(ball.mid()), 1, 1)(x).astype(np.float64)
        largest = middle.max(-1, keepdims=True)
        return self.lift(torch.from_numpy(np.where(largest == -np.inf, 0.0, largest)))

    def exp(self, x: Balls) -> Balls:
        return self._array(self._exp(x))

    def log(self, x: Balls) -> Balls:
        return self._array(self._log(x))

    def sqrt(self, x: Balls) -> Balls:
        return self._array(self._sqrt(x))

    def tanh(self, x: Balls) -> Balls:
        return self._array(self._tanh(x))

    def erfc(self, x: Balls) -> Balls:
        return self._array(self._erfc(x))

    def cos(self, x: Balls) -> Balls:
        return self._array(self._cos(x))

    def sin(self, x: Balls) -> Balls:
        return self._array(self._sin(x))

    def power(self, base: float, exponent: Balls) -> Balls:
        return self.exp(exponent * self._arb(base).log())

    def constant(self, name: str) -> Balls:
        return self._array(getattr(self._arb, name)())

    def hide(self, x: Balls, visible: torch.Tensor) -> Balls:
        return np.where(visible.numpy(), x, self._arb("-inf"))

    def transpose(self, x: Balls) -> Balls:
        return x.swapaxes(-1, -2)

    def repeat(self, x: Balls, times: int) -> Balls:
        return np.repeat(x, times, axis=-3)

    def concatenate(self, parts: list[Balls]) -> Balls:
        return np.concatenate(parts, -1)
