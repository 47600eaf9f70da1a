"""A loss that is computed with its gradients, as a node of torch's graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd import Function

from ..gradients.first_order import first_order
from .fixed_math import F64


class _Loss(Function):
    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, gradients: list[F64], *inputs: torch.Tensor
    ) -> torch.Tensor:
        ctx.gradients, ctx.dtypes = gradients, [x.dtype for x in inputs]
        return value.clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, dloss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = dloss.double().numpy()
        found = [
            torch.from_numpy(np.asarray(g * _over(factor, g))).to(dtype)
            for g, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        return None, None, *found


def loss_of(value: F64 | float, *inputs: tuple[torch.Tensor, F64]) -> torch.Tensor:
    """Returns the value, fp64, whose gradient at each input is the array beside it.

    `value` is a number, or one a row of the inputs whose arrays then hold the row's own derivative.
    """
    tensors, gradients = zip(*inputs, strict=True)
    made = torch.from_numpy(np.array(value, dtype=np.float64))
    result: torch.Tensor = _Loss.apply(made, list(gradients), *tensors)  # type: ignore[no-untyped-call]
    return result


def _over(factor: F64, gradient: F64) -> F64:
    """A factor, or one a row, against an array of rows."""
    return (
        factor.reshape(factor.shape + (1,) * (gradient.ndim - factor.ndim))
        if factor.ndim
        else factor
    )


def array(x: torch.Tensor) -> F64:
    """Returns a tensor's values in fp64."""
    return np.asarray(x.detach().double().numpy())
