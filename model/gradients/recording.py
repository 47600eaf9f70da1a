"""The operations that a pass records in a graph."""

from __future__ import annotations

from typing import Any

import torch

from ..batch import RaggedBatch
from ..hooks.gradient_hook import NO_GRADIENTS
from ..hooks.registry import in_graph
from ..ops.interface import Ops
from ..ops.native import NativeOps
from .head import LEAF
from .ops import GradientOps
from .token_logprob import token_logprob
from .training_ops import TrainingOps


def gradient_ops(ops: Ops, batch: RaggedBatch | None = None) -> Ops:
    """`ops` with derivatives, where they are native and have some; else themselves.

    In a pass over a `batch` trained weights have gradients, too.
    """
    if type(ops) is not NativeOps or ops.policy.compute is not torch.float32:
        return ops
    if ops.trained is None or batch is None:
        return GradientOps(ops)
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


def head_logprob(
    ops: Ops,
    x_Td: torch.Tensor,
    rows_S: torch.Tensor,
    ids_S: torch.Tensor,
    weight: Any,
    cap: float | None,
    temperature: float,
) -> torch.Tensor:
    """Returns ln p of the tokens that follow some rows of the last norm's output, [S].

    Logits are made for 256 rows at a time.
    """
    if isinstance(ops, TrainingOps):
        return ops.head_logprob(x_Td, rows_S, ids_S, weight, cap, temperature)
    found = []
    for first in range(0, len(rows_S), LEAF):
        rows, ids = rows_S[first : first + LEAF], ids_S[first : first + LEAF]
        logits = ops.linear(x_Td[rows], weight, out_dtype=ops.policy.logits)
        logits = logits if cap is None else ops.soft_cap(logits, cap)
        found.append(logprob_of(logits, ids, temperature))
    return torch.cat(found)


def logprob_of(logits: torch.Tensor, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """`token_logprob`; torch's own where its kernels do not reach: fp64, and other devices."""
    if logits.dtype is torch.float32 and logits.device.type == "cpu":
        return token_logprob(logits, ids, temperature)
    scaled = logits / (temperature if temperature >= 1e-5 else 1.0)
    return torch.log_softmax(scaled, dim=-1).gather(-1, ids[..., None])[..., 0]
