"""Backward functions made of kernels, which autograd cannot differentiate again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def first_order(backward: Callable[..., T]) -> Callable[..., T]:
    """`backward`, which raises RuntimeError where a graph of the gradient itself is wanted.

    torch's once_differentiable returns such a gradient as a constant unless the incoming one
    requires grad.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Any) -> T:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph: native gradients have no gradients of their own; load with "
                'backend="torch"'
            )
        return backward(ctx, *grads)

    return checked
