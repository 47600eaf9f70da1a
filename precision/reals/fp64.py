"""The real numbers to fp64 accuracy: torch, and the same with correctly rounded sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch

Tensor = torch.Tensor

# Veltkamp's constant: x * SPLIT cuts fp64's 53 bits into two halves of 26.
_SPLIT = 2.0**27 + 1


class Fp64:
    """Vectorised: every operation rounds once to fp64, reductions as torch pleases."""

    def lift(self, x: Tensor | float) -> Tensor:
        return torch.as_tensor(x, dtype=torch.float64).detach()

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def sum(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True)

    def peak(self, x: Tensor) -> Tensor:
        peak = x.amax(-1, keepdim=True)
        return peak.masked_fill(peak == -torch.inf, 0.0)

    def exp(self, x: Tensor) -> Tensor:
        return x.exp()

    def log(self, x: Tensor) -> Tensor:
        return x.log()

    def sqrt(self, x: Tensor) -> Tensor:
        return x.sqrt()

    def tanh(self, x: Tensor) -> Tensor:
        return x.tanh()

    def erfc(self, x: Tensor) -> Tensor:
        y: Tensor = torch.special.erfc(x)
        return y

    def cos(self, x: Tensor) -> Tensor:
        return x.cos()

    def sin(self, x: Tensor) -> Tensor:
        return x.sin()

    def power(self, base: float, exponent: Tensor) -> Tensor:
        return torch.pow(base, exponent)

    def constant(self, name: str) -> Tensor:
        return self.lift(getattr(math, name))

    def hide(self, x: Tensor, visible: Tensor) -> Tensor:
        return x.masked_fill(~visible, -torch.inf)

    def transpose(self, x: Tensor) -> Tensor:
        return x.mT

    def repeat(self, x: Tensor, times: int) -> Tensor:
        return x.repeat_interleave(times, -3)

    def concatenate(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, -1)


class Fsum(Fp64):
    """Every sum and inner product is the exact one, rounded once (Python's math.fsum)."""

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return _dots(a, b)

    def sum(self, x: Tensor) -> Tensor:
        sums = [math.fsum(row) for row in x.reshape(-1, x.shape[-1]).tolist()]
        return torch.tensor(sums, dtype=torch.float64).reshape(*x.shape[:-1], 1)


def exact_dot(a: Tensor, b: Tensor) -> Tensor:
    """a [.., m, k] @ b [.., k, n], each exact inner product rounded once to fp64.

    Products of bf16, fp16 and fp32 are exact in fp64; wider values are split into halves whose
    products are (Dekker 1971). In pure Python: for hundreds of outputs, not for layers. Raises
    ValueError for products outside fp64's normal range, where halves stop being exact.
    """
    smallest, largest = (_factors(reach, a, b) for reach in (torch.amin, torch.amax))
    if smallest < 2.0**-900 or largest > 2.0**900:
        raise ValueError("exact_dot: products below 2**-900 or above 2**900; scale the inputs")
    return _dots(a, b)


def _factors(reach: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """The extreme product of a non-zero entry of a and one of b."""
    ends = [x[x != 0].detach().double().abs() for x in (a, b)]
    if not all(x.numel() for x in ends):
        return 1.0
    return math.prod(float(reach(x)) for x in ends)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """`exact_dot`, off by some 2**-1074 for every product that underflows."""
    a, b = a.detach().to(torch.float64), b.detach().to(torch.float64)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    left = a.expand(*batch, *a.shape[-2:]).reshape(-1, *a.shape[-2:])
    right = b.mT.expand(*batch, *b.mT.shape[-2:]).reshape(-1, *b.mT.shape[-2:])
    dots = [
        math.fsum(chain.from_iterable(p.tolist() for p in _products(row, column)))
        for rows, columns in zip(left, right, strict=True)
        for row in rows
        for column in columns
    ]
    return torch.tensor(dots, dtype=torch.float64).reshape(shape)


def _products(a: Tensor, b: Tensor) -> list[Tensor]:
    """fp64 tensors which together sum to a * b exactly, but for underflow."""
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return [a_high * b_high, a_high * b_low, a_low * b_high, a_low * b_low]


def _high(x: Tensor) -> Tensor:
    c = x * _SPLIT
    return c - (c - x)
