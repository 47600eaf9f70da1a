"""Operations whose weights are trained, as nodes of torch's graph.

Backward adds the weight's gradient to its sum, in the order of docs/numerics.md, and returns the
input's gradient. `anchor` is a scalar that requires grad, so that a node is recorded whatever its
input is; its gradient is None. Tensor names: T ragged rows, B sequences, V vocabulary, d d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from ..ops import kernels
from ..ops.packed import PackedWeight
from ..ops.weight_gradients import GradientSum
from . import kernels as gradient_kernels
from . import weight_kernels
from .first_order import first_order

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums that the gradients of one operation's weights are added to.

    Attributes:
        starts_B1: int64, the rows at which sequences begin.
    """

    starts_B1: Tensor
    weight: GradientSum | None
    bias: GradientSum | None = None


class TrainedLinear(Function):
    """dW = dy^T x, db = the sum of dy."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,
        weight: PackedWeight,
        bias: Tensor | None,
        out_dtype: torch.dtype,
        sums: Sums,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.sums = weight, sums
        return kernels.linear(x, weight.data, weight.format, weight.n, bias, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        sums: Sums = ctx.sums
        if sums.weight is not None:
            weight_kernels.add_linear_weight_grad(sums.weight.begun(), dy, x, sums.starts_B1)
        if sums.bias is not None:
            weight_kernels.add_bias_grad(sums.bias.begun(), dy, sums.starts_B1)
        dx = None
        if ctx.needs_input_grad[0]:
            turned = ctx.weight.transposed
            dx = kernels.linear(dy, turned.data, turned.format, turned.n, None, x.dtype)
        return dx, None, None, None, None, None


class TrainedRMSNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,
        weight: Tensor,
        eps: float,
        out_dtype: torch.dtype,
        sums: Sums,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.sums = eps, sums
        return kernels.rms_norm(x, weight, eps, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        normalized = kernels.normalize(x, kernels.rms_scale(x, ctx.eps))
        sums = ctx.sums.weight.begun()
        weight_kernels.add_norm_weight_grad(sums, dy, normalized, ctx.sums.starts_B1)
        dx = gradient_kernels.rms_norm_backward(dy, x, weight, ctx.eps)
        return dx, None, None, None, None, None


class TrainedNormWeight(Function):
    @staticmethod
    def forward(
        ctx: Any,
        normalized: Tensor,
        anchor: Tensor,
        weight: Tensor,
        out_dtype: torch.dtype,
        sums: Sums,
    ) -> Tensor:
        ctx.save_for_backward(normalized, weight)
        ctx.sums = sums
        return kernels.norm_weight(normalized, weight, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        normalized, weight = ctx.saved_tensors
        sums = ctx.sums.weight.begun()
        weight_kernels.add_norm_weight_grad(sums, dy, normalized, ctx.sums.starts_B1)
        wide = kernels.cast(dy, torch.float32)
        dnormalized = kernels.norm_weight(wide, weight, torch.float32)
        return dnormalized, None, None, None, None


class TrainedEmbedding(Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, tokens_T: Tensor, rows_Td: Tensor, scale: float, sums: Sums
    ) -> Tensor:
        """`rows_Td` is the result."""
        ctx.save_for_backward(tokens_T)
        ctx.scale, ctx.sums = scale, sums
        return rows_Td.view_as(rows_Td)

    @staticmethod
    @first_order
    def backward(ctx: Any, dresid_Td: Tensor) -> tuple[Tensor | None, ...]:
        (tokens_T,) = ctx.saved_tensors
        sums = ctx.sums.weight.begun()
        weight_kernels.add_embed_grad(sums, dresid_Td, tokens_T, ctx.scale, ctx.sums.starts_B1)
        return None, None, None, None, None


class Scaled(Function):
    """x times a number, fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return kernels.scaled(x, factor, torch.float32)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return kernels.scaled(dy, ctx.factor, torch.float32), None


class Rounded(Function):
    """fp32 rounded to another dtype, whose gradient is the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return kernels.cast(x, dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return kernels.cast(dy, torch.float32), None
