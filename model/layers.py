"""The layers a model is built from, each dispatched at its address.

Called without a run, a layer is its operation alone on [..., d], without hooks and overrides, and
part of its input's graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .gradients import recording
from .ops.adapted import AdaptedMatrix
from .ops.interface import Ops
from .run import Run


class Linear(nn.Module):
    """y = x W^T + b rounded once to `out_dtype`, dispatched at `address`.

    Attributes:
        out_dtype: None for the policy's activations.
    """

    def __init__(
        self,
        address: str,
        ops: Ops,
        weight: Any,
        bias: torch.Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.address = address
        self.ops = ops
        self.weight = weight
        self.bias = bias
        self.out_dtype = out_dtype

    def forward(self, x: torch.Tensor, run: Run | None = None) -> torch.Tensor:
        if run is None:
            linear = recording(self.ops, x).linear
            return _by_rows(
                lambda rows: linear(rows, self.weight, self.bias, out_dtype=self.out_dtype), x
            )
        return run.op(
            self.address, run.ops.linear, x, self.weight, self.bias, out_dtype=self.out_dtype
        )

    def matrix(self, n: int) -> torch.Tensor:
        """W [n, k], n its number of outputs, each weight as it is stored.

        Raises ValueError for one with an adapter, which is no matrix of its own.
        """
        if isinstance(self.weight, AdaptedMatrix):
            raise ValueError(
                f"{self.address}: W has a low-rank adapter beside it; read both in "
                "model.trained.values, or load model.trained.checkpoint(), where they are added"
            )
        rows = self.ops.embed(torch.arange(n, device=self.ops.device), self.weight, 1.0)
        return rows.to(self.ops.policy.activation)


class Embedding(nn.Module):
    """Rows of W times a scale, dispatched at "embed"."""

    def __init__(self, ops: Ops, weight: Any, scale: float) -> None:
        super().__init__()
        self.ops = ops
        self.weight = weight
        self.scale = scale

    def forward(self, tokens: torch.Tensor, run: Run | None = None) -> torch.Tensor:
        if run is None:
            rows_Td = self.ops.embed(tokens.flatten(), self.weight, self.scale)
            return rows_Td.view(*tokens.shape, -1)
        return run.op("embed", run.ops.embed, tokens, self.weight, self.scale)


class RMSNorm(nn.Module):
    """RMS norm over the last axis, dispatched at `address`, with hook_scale and hook_normalized.

    An edited scale or normalized activation goes on through `normalize` and `norm_weight`, of which
    the fused norm is the same function bit for bit.
    """

    def __init__(self, address: str, ops: Ops, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.address = address
        self.ops = ops
        self.weight = weight
        self.eps = eps

    @property
    def w(self) -> torch.Tensor:
        """The weight, under TransformerLens's name; what multiplies, 1 + w in Gemma's terms."""
        return self.weight

    def forward(self, x: torch.Tensor, run: Run | None = None) -> torch.Tensor:
        if run is None:
            rms_norm = recording(self.ops, x).rms_norm
            return _by_rows(lambda rows: rms_norm(rows, self.weight, self.eps), x)
        names = (f"{self.address}.hook_scale", f"{self.address}.hook_normalized")
        if run.wants(*names):
            parts, x = run.ops.fork(x, 2)
            x_scale, x_normalize = run.ops.fork(run.ops.widen(parts), 2)
            scale, scaled = run.hook_edited(names[0], run.ops.rms_scale(x_scale, self.eps))
            normalized, edited = run.hook_edited(names[1], run.ops.normalize(x_normalize, scale))
            if scaled or edited:
                return run.op(self.address, run.ops.norm_weight, normalized, self.weight)
        return run.op(self.address, run.ops.rms_norm, x, self.weight, self.eps)


class SoftCap(nn.Module):
    """cap * tanh(x / cap) of the logits, dispatched at "soft_cap"."""

    def __init__(self, ops: Ops, cap: float) -> None:
        super().__init__()
        self.ops = ops
        self.cap = cap

    def forward(self, x: torch.Tensor, run: Run | None = None) -> torch.Tensor:
        if run is None:
            return recording(self.ops, x).soft_cap(x, self.cap)
        return run.op("soft_cap", run.ops.soft_cap, x, self.cap)


def _by_rows(fn: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """fn of [rows, k] over all leading axes of x."""
    y = fn(x.reshape(-1, x.shape[-1]))
    return y.view(*x.shape[:-1], y.shape[-1])
