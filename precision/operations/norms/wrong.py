"""LayerNorm and GroupNorm as implementations have got them wrong, each right but for one thing.

For `Emulation` only: they look at the numbers that they compute with.
"""

from __future__ import annotations

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program

Tensor = torch.Tensor

SMALL_VARIANCE = 1e-6


def layer_norm_from_squares(ar: Arithmetic[Tensor], inputs: Inputs) -> Tensor:
    """The variance as E[x^2] - E[x]^2, which cancels where the mean is large (pytorch#51102)."""
    return program.layer_norm(ar, inputs, variance=_from_squares)


def group_norm_from_squares(ar: Arithmetic[Tensor], inputs: Inputs) -> Tensor:
    """The same of a group (pytorch/executorch#16727)."""
    return program.group_norm(ar, inputs, variance=_from_squares)


def _from_squares(ar: Arithmetic[Tensor], x: Tensor, mean: Tensor, n: int) -> Tensor:
    squares = ar.div(ar.sum_of_squares(x), ar.constant(float(n)))
    return ar.sub(squares, ar.square(mean)).clamp(min=0.0)


def layer_norm_without_small_variance(ar: Arithmetic[Tensor], inputs: Inputs) -> Tensor:
    """A variance below 1e-6 taken as 0 (pytorch#190491)."""

    def variance(ar: Arithmetic[Tensor], x: Tensor, mean: Tensor, n: int) -> Tensor:
        honest = program.variance(ar, x, mean, n)
        return ar.where(honest >= SMALL_VARIANCE, honest, 0.0)

    return program.layer_norm(ar, inputs, variance=variance)
