"""Gradients of activations on the native backend, with bits as fixed as the forward pass's.

kernels -> functions (one autograd.Function an operation), attention -> ops, which a pass uses where
a graph is wanted (docs/numerics.md, Gradients). Gradients of weights: weight_kernels ->
trained_functions -> training_ops.
"""

from __future__ import annotations

from .ops import GradientOps, check_differentiable
from .recording import gradient_ops, head_logprob, logprob_of, recording
from .token_logprob import token_logprob
from .training_ops import TrainingOps

__all__ = [
    "GradientOps",
    "TrainingOps",
    "check_differentiable",
    "gradient_ops",
    "head_logprob",
    "logprob_of",
    "recording",
    "token_logprob",
]
