"""Gradients of activations on the native backend, with bits as fixed as the forward pass's.

kernels -> functions (one autograd.Function an operation), attention -> ops, which a pass uses where
a graph is wanted (docs/numerics.md, Gradients). Gradients of weights, which are imported where some
are trained: weight_kernels -> trained_functions -> training_ops.
"""

from __future__ import annotations

from .ops import GradientOps, check_differentiable
from .recording import gradient_ops, recording

__all__ = ["GradientOps", "check_differentiable", "gradient_ops", "recording"]
