"""Operations on rows as nodes of torch's graph: forward and backward are native kernels.

A gradient has the dtype of what it is the gradient of, rounded once at each operation's input.
Second derivatives raise. Each is given the kernels that it runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function

from ..config import ActFn
from ..ops.kernel_set import KernelPair
from ..ops.packed import PackedWeight
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
        kernels: KernelPair,
    ) -> Tensor:
        ctx.weight, ctx.dtype, ctx.kernels = weight, x.dtype, kernels.forward
        return kernels.forward.linear(x, weight.data, weight.format, weight.n, bias, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        turned = ctx.weight.transposed
        dx = ctx.kernels.linear(dy, turned.data, turned.format, turned.n, None, ctx.dtype)
        return dx, None, None, None, None


class Add(Function):
    """Both summands have the sum's gradient, y in its own dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kernels: KernelPair) -> Tensor:
        ctx.dtype, ctx.kernels = y.dtype, kernels.forward
        return kernels.forward.add(x, y)

    @staticmethod
    @first_order
    def backward(ctx: Any, dsum: Tensor) -> tuple[Gradient, ...]:
        same = dsum.dtype is ctx.dtype
        return dsum, dsum if same else ctx.kernels.cast(dsum, ctx.dtype), None


class Fork(Function):
    """One tensor for n readers; their gradients are added in the order of the readers.

    Autograd's own sum would follow the order of execution and the caller's flush-to-zero mode.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int, kernels: KernelPair) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.kernels = kernels.forward
        return tuple(x.view_as(x) for _ in range(n))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Gradient) -> tuple[Gradient, ...]:
        total: Gradient = None
        for grad in grads:
            if grad is not None:
                total = grad if total is None else ctx.kernels.add(total, grad)
        return total, None, None


class Widen(Function):
    """x in fp32; the gradient is rounded to x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: KernelPair) -> Tensor:
        ctx.dtype, ctx.kernels = x.dtype, kernels.forward
        return kernels.forward.cast(x, torch.float32)

    @staticmethod
    @first_order
    def backward(ctx: Any, dx: Tensor) -> tuple[Gradient, ...]:
        return ctx.kernels.cast(dx, ctx.dtype), None


class RMSScale(Function):
    """Takes fp32 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, kernels: KernelPair) -> Tensor:
        scale = kernels.forward.rms_scale(x, eps)
        ctx.save_for_backward(x, scale)
        ctx.kernels = kernels.backward
        return scale

    @staticmethod
    @first_order
    def backward(ctx: Any, dscale: Tensor) -> tuple[Gradient, ...]:
        return ctx.kernels.rms_scale_backward(dscale, *ctx.saved_tensors), None, None


class Normalize(Function):
    """Takes fp32 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, kernels: KernelPair) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.kernels = kernels.backward
        return kernels.forward.normalize(x, scale)

    @staticmethod
    @first_order
    def backward(ctx: Any, dn: Tensor) -> tuple[Gradient, ...]:
        return *ctx.kernels.normalize_backward(dn, *ctx.saved_tensors), None


class NormWeight(Function):
    """The gradient of `normalized`, fp32."""

    @staticmethod
    def forward(
        ctx: Any, normalized: Tensor, weight: Tensor, out_dtype: torch.dtype, kernels: KernelPair
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.kernels = kernels.forward
        return kernels.forward.norm_weight(normalized, weight, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        (weight,) = ctx.saved_tensors
        wide = ctx.kernels.cast(dy, torch.float32)
        return ctx.kernels.norm_weight(wide, weight, torch.float32), None, None, None


class RMSNorm(Function):
    """The three above in one, bit for bit."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        eps: float,
        out_dtype: torch.dtype,
        kernels: KernelPair,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.kernels = eps, kernels.backward
        return kernels.forward.rms_norm(x, weight, eps, out_dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        x, weight = ctx.saved_tensors
        dx = ctx.kernels.rms_norm_backward(dy, x, weight, ctx.eps)
        return dx, None, None, None, None


class Rope(Function):
    """Rotation back, by the opposite angle."""

    @staticmethod
    def forward(
        ctx: Any,
        x_THh: Tensor,
        positions_T: Tensor,
        cos: Tensor,
        sin: Tensor,
        kernels: KernelPair,
    ) -> Tensor:
        ctx.save_for_backward(positions_T, cos, sin)
        ctx.kernels = kernels.forward
        return kernels.forward.rope(x_THh, positions_T, cos, sin)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy_THh: Tensor) -> tuple[Gradient, ...]:
        positions_T, cos, sin = ctx.saved_tensors
        return ctx.kernels.rope(dy_THh, positions_T, cos, -sin), None, None, None, None


class SoftCap(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float, kernels: KernelPair) -> Tensor:
        y = kernels.forward.soft_cap(x, cap)
        ctx.save_for_backward(y)
        ctx.cap, ctx.kernels = cap, kernels.backward
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> tuple[Gradient, ...]:
        (y,) = ctx.saved_tensors
        return ctx.kernels.soft_cap_backward(dy, y, ctx.cap), None, None


class GatedAct(Function):
    @staticmethod
    def forward(ctx: Any, kind: ActFn, gate: Tensor, up: Tensor, kernels: KernelPair) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind, ctx.kernels = kind, kernels.backward
        return kernels.forward.gated_act(kind, gate, up)

    @staticmethod
    @first_order
    def backward(ctx: Any, dpost: Tensor) -> tuple[Gradient, ...]:
        gate, up = ctx.saved_tensors
        return None, *ctx.kernels.gated_act_backward(ctx.kind, gate, up, dpost), None


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
