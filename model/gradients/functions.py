"""Operations on rows as nodes of torch's graph: forward and backward are native kernels.

A gradient has the dtype of what it is the gradient of, rounded once at each operation's input.
Second derivatives raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function

from ..config import ActFn
from ..ops import kernels
from ..ops.packed import PackedWeight
from . import kernels as gradient_kernels
from .first_order import first_order

Tensor = torch.Tensor
Gradient = Tensor | None


class Linear(Function):
    """dx = dy W: `linear` with the transposed matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: PackedWeight,
        bias: Tensor | None,
        out_dtype: torch.dtype,
    ) -> Tensor:
        ctx.weight, ctx.dtype = weight, x.dtype
        return kernels.linear(x, weight.data, weight.format, weight.n, bias, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        turned = ctx.weight.transposed
        dx = kernels.linear(dy, turned.data, turned.format, turned.n, None, ctx.dtype)
        return dx, None, None, None


class Add(Function):
    """Both summands have the sum's gradient, y in its own dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.dtype = y.dtype
        return kernels.add(x, y)

    @staticmethod
    @first_order
    def backward(ctx: Any, dsum: Tensor) -> tuple[Tensor, Tensor]:
        same = dsum.dtype is ctx.dtype
        return dsum, dsum if same else kernels.cast(dsum, ctx.dtype)


class Fork(Function):
    """One tensor for n readers; their gradients are added in the order of the readers.

    Autograd's own sum would follow the order of execution and the caller's flush-to-zero mode.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for _ in range(n))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Gradient) -> tuple[Gradient, None]:
        total: Gradient = None
        for grad in grads:
            if grad is not None:
                total = grad if total is None else kernels.add(total, grad)
        return total, None


class Widen(Function):
    """x in fp32; the gradient is rounded to x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return kernels.cast(x, torch.float32)

    @staticmethod
    @first_order
    def backward(ctx: Any, dx: Tensor) -> Tensor:
        return kernels.cast(dx, ctx.dtype)


class RMSScale(Function):
    """Takes fp32 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        scale = kernels.rms_scale(x, eps)
        ctx.save_for_backward(x, scale)
        return scale

    @staticmethod
    @first_order
    def backward(ctx: Any, dscale: Tensor) -> tuple[Tensor, None]:
        return gradient_kernels.rms_scale_backward(dscale, *ctx.saved_tensors), None


class Normalize(Function):
    """Takes fp32 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return kernels.normalize(x, scale)

    @staticmethod
    @first_order
    def backward(ctx: Any, dn: Tensor) -> tuple[Tensor, Tensor]:
        return gradient_kernels.normalize_backward(dn, *ctx.saved_tensors)


class NormWeight(Function):
    """The gradient of `normalized`, fp32."""

    @staticmethod
    def forward(ctx: Any, normalized: Tensor, weight: Tensor, out_dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(weight)
        return kernels.norm_weight(normalized, weight, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        (weight,) = ctx.saved_tensors
        wide = kernels.cast(dy, torch.float32)
        return kernels.norm_weight(wide, weight, torch.float32), None, None


class RMSNorm(Function):
    """The three above in one, bit for bit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return kernels.rms_norm(x, weight, eps, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        x, weight = ctx.saved_tensors
        return gradient_kernels.rms_norm_backward(dy, x, weight, ctx.eps), None, None, None


class Rope(Function):
    """Rotation back, by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x_THh: Tensor, positions_T: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(positions_T, cos, sin)
        return kernels.rope(x_THh, positions_T, cos, sin)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy_THh: Tensor) -> tuple[Gradient, ...]:
        positions_T, cos, sin = ctx.saved_tensors
        return kernels.rope(dy_THh, positions_T, cos, -sin), None, None, None


class SoftCap(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float) -> Tensor:
        y = kernels.soft_cap(x, cap)
        ctx.save_for_backward(y)
        ctx.cap = cap
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient_kernels.soft_cap_backward(dy, y, ctx.cap), None


class GatedAct(Function):
    @staticmethod
    def forward(ctx: Any, kind: ActFn, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return kernels.gated_act(kind, gate, up)

    @staticmethod
    @first_order
    def backward(ctx: Any, dpost: Tensor) -> tuple[None, Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return None, *gradient_kernels.gated_act_backward(ctx.kind, gate, up, dpost)


class Rearrange(Function):
    """there(x), a rearrangement; its gradient goes `back`, without a sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.back = back
        y = there(x)
        return y.view_as(y)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        return ctx.back(dy), None, None
