"""The matrix product over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def matmul(over: Algebra, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Array:
    """a [.., m, k] @ b [.., k, n] + bias [n]."""
    y = over.matmul(over.lift(a), over.lift(b))
    return y if bias is None else y + over.lift(bias)
