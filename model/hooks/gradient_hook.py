"""A place in torch's graph where a function sees the gradient, and may put another in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...policies import GRADIENTS, STEPWISE
from ..batch import RaggedBatch
from .registry import HookFunction, HookPoint, call_hook, has_key_axis, moved

NO_GRADIENTS = (
    f"this model computes no gradients here: it has none over several ranks and for {STEPWISE}; "
    f"load it without a group as {', '.join(GRADIENTS[:-1])} or {GRADIENTS[-1]}, or with "
    'backend="torch"'
)

GradientFunction = Callable[[torch.Tensor], torch.Tensor]


def hook_gradient(x: torch.Tensor, fn: GradientFunction) -> torch.Tensor:
    """x, from here on part of a graph; its gradient becomes fn of it, of like shape and dtype."""
    # Requires grad, so that the node is recorded even where x itself does not.
    anchor = torch.empty(0, dtype=torch.float32, device="cpu", requires_grad=True)
    return _GradientHook.apply(x, anchor, fn)  # type: ignore[no-any-return, no-untyped-call]


def watch_gradient(
    x: torch.Tensor, functions: Sequence[HookFunction], point: HookPoint
) -> torch.Tensor:
    """Works like `hook_gradient` with the user's functions, which read or edit the gradient."""

    def fn(grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone()
        for each in functions:
            grad = call_hook(each, grad, point)
        return grad

    return hook_gradient(x, fn)


@dataclass(frozen=True, eq=False)
class BackwardHook:
    """Passes a hook's gradient through its backward functions, on ragged rows.

    Holds nothing else of its pass, whose activations would live as long as the graph.

    Attributes:
        masked: Bool [T, 1, K] at keys that no query reads, for scores and patterns.
    """

    point: HookPoint
    functions: Sequence[HookFunction]
    batch: RaggedBatch
    masked: torch.Tensor | None = None

    def __call__(self, grad: torch.Tensor) -> torch.Tensor:
        grad = self._visible(grad)
        keys = has_key_axis(self.point.name)
        shown = self.batch.pad_keys(grad, 0.0) if keys else self.batch.pad(grad)
        shown = shown.clone(memory_format=torch.contiguous_format)
        for fn in self.functions:
            shown = call_hook(fn, shown, self.point)
        rows = self.batch.strip_keys(shown, 0.0) if keys else self.batch.strip(shown)
        return self._visible(rows.clone()) if moved(rows, grad) else grad

    def _visible(self, grad: torch.Tensor) -> torch.Tensor:
        return grad if self.masked is None else grad.masked_fill(self.masked, 0.0)


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
