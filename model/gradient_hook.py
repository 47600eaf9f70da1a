"""A place in torch's graph where a function sees the gradient, and may put another in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NO_GRADIENTS = (
    "this model computes no gradients here: over several ranks, and for hf_bf16, it has none; load "
    'it without a group, as fp32, bf16 or bf16_weights, or with backend="torch"'
)

GradientFunction = Callable[[torch.Tensor], torch.Tensor]


def hook_gradient(x: torch.Tensor, fn: GradientFunction) -> torch.Tensor:
    """x, from here on part of a graph; its gradient becomes fn of it, of like shape and dtype."""
    # Requires grad, so that the node is recorded even where x itself does not.
    anchor = torch.empty(0, requires_grad=True)
    return _GradientHook.apply(x, anchor, fn)  # type: ignore[no-any-return, no-untyped-call]


class _GradientHook(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, anchor: torch.Tensor, fn: GradientFunction
    ) -> torch.Tensor:
        ctx.fn = fn
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.fn(grads[0]), None, None
