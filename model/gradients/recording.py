"""The operations that a pass records in a graph."""

from __future__ import annotations

import torch

from ..batch import RaggedBatch
from ..hooks.gradient_hook import NO_GRADIENTS
from ..hooks.registry import in_graph
from ..ops.interface import Ops
from ..ops.native import NativeOps
from .ops import GradientOps


def gradient_ops(ops: Ops, batch: RaggedBatch | None = None) -> Ops:
    """`ops` with derivatives, where they are native and have some; else themselves.

    In a pass over a `batch` trained weights have gradients, too.
    """
    if not isinstance(ops, NativeOps) or not ops.is_recordable:
        return ops
    if ops.trained is None or batch is None:
        return GradientOps(ops)
    # Here, since most models are not trained: importing bitlens stays light.
    from .training_ops import TrainingOps

    return TrainingOps(ops, ops.trained, batch)


def recording(ops: Ops, x: torch.Tensor) -> Ops:
    """`ops` for use outside a pass, recorded if x is in a graph.

    Raises ValueError where they would cut it.
    """
    if not in_graph(x):
        return ops
    recorded = gradient_ops(ops)
    if not recorded.differentiable:
        raise ValueError(
            f"an operation's input requires grad; {NO_GRADIENTS}; or detach() it, or use "
            "torch.no_grad()"
        )
    return recorded
