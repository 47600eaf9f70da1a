"""The native operations where a graph is wanted: the same kernels forward, native ones backward.

Tensor names: T ragged rows, K key positions, d d_model, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ActFn
from ..hooks.gradient_hook import NO_GRADIENTS
from ..hooks.registry import in_graph
from ..ops.interface import Ops
from ..ops.kernel_set import KernelPair
from ..ops.native import NativeOps
from ..ops.packed import PackedWeight
from ..rope.scaling import RopeScaling
from . import attention, functions
from . import kernels as cpu_derivatives


class GradientOps(NativeOps):
    """`NativeOps` whose operations are recorded from the first tensor on that requires grad.

    What comes before it runs as ever. Weights have no gradients: they are packed.
    """

    differentiable = True
    is_recordable = False

    def __init__(self, plain: NativeOps) -> None:
        """Takes over the policy, the kernels and the rotary tables of `plain`."""
        super().__init__(plain.policy)
        self.kernels, self.device = plain.kernels, plain.device
        self.rope_tables = plain.rope_tables
        self._both = KernelPair(plain.kernels, plain.derivatives or cpu_derivatives)

    def linear(
        self,
        x: torch.Tensor,
        weight: PackedWeight,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        if not in_graph(x):
            return super().linear(x, weight, bias, out_dtype=out_dtype)
        out_dtype = out_dtype or self.policy.activation
        return recorded(functions.Linear, x, weight, bias, out_dtype, self._both)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not in_graph(x, y):
            return super().add(x, y)
        return recorded(functions.Add, x, y, self._both)

    def fork(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
        if not in_graph(x):
            return super().fork(x, n)
        return functions.Fork.apply(x, n, self._both)  # type: ignore[no-untyped-call,no-any-return]

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return self._in_fp32(x) if in_graph(x) else x

    def rearrange(
        self,
        x: torch.Tensor,
        there: Callable[[torch.Tensor], torch.Tensor],
        back: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        return recorded(functions.Rearrange, x, there, back) if in_graph(x) else there(x)

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        if not in_graph(x):
            return super().rms_scale(x, eps)
        return recorded(functions.RMSScale, self._in_fp32(x), eps, self._both)

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        if not in_graph(x, scale):
            return super().normalize(x, scale)
        return recorded(functions.Normalize, self._in_fp32(x), scale, self._both)

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not in_graph(normalized):
            return super().norm_weight(normalized, weight)
        return recorded(
            functions.NormWeight, normalized, weight, self.policy.activation, self._both
        )

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        if not in_graph(x):
            return super().rms_norm(x, weight, eps)
        return recorded(functions.RMSNorm, x, weight, eps, self.policy.activation, self._both)

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        if not in_graph(x_THh):
            return super().rope(x_THh, positions_T, theta, scaling)
        table = self.rope_tables.upto(theta, x_THh.shape[-1], int(positions_T.max()) + 1, scaling)
        return recorded(functions.Rope, x_THh, positions_T, table.cos, table.sin, self._both)

    def write_kv(
        self, layer_cache: LayerCache, batch: RaggedBatch, k_TGh: torch.Tensor, v_TGh: torch.Tensor
    ) -> None:
        super().write_kv(layer_cache, batch, k_TGh, v_TGh)
        layer_cache.written = (k_TGh, v_TGh)

    def attention(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
    ) -> torch.Tensor:
        k_TGh, v_TGh = _written(layer_cache)
        z_THh = super().attention(q_THh, layer_cache, batch, scale=scale, cap=cap, window=window)
        if not in_graph(q_THh, k_TGh, v_TGh):
            return z_THh
        check_differentiable(self, batch)
        settings = attention.Settings(batch, scale, cap, window, self._both)
        return recorded(attention.Attention, q_THh, k_TGh, v_TGh, z_THh, settings)

    def attention_scores(
        self,
        q_THh: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        scale: float,
        cap: float | None,
        window: int | None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        k_TGh, _ = _written(layer_cache)
        scores_THK = super().attention_scores(
            q_THh, layer_cache, batch, scale=scale, cap=cap, window=window, rows=rows
        )
        if not in_graph(q_THh, k_TGh):
            return scores_THK
        assert rows is None, "some rows alone are computed for captures, which carry no gradient"
        check_differentiable(self, batch)
        settings = attention.Settings(batch, scale, cap, window, self._both)
        return recorded(attention.Scores, q_THh, k_TGh, scores_THK, settings)

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        if not in_graph(scores_THK):
            return super().attention_pattern(scores_THK)
        return recorded(attention.Softmax, scores_THK, self._both)

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        _, v_TGh = _written(layer_cache)
        z_THh = super().attention_values(pattern_THK, layer_cache, batch, window=window)
        if not in_graph(pattern_THK, v_TGh):
            return z_THh
        check_differentiable(self, batch)
        settings = attention.Settings(batch, 1.0, None, window, self._both)
        return recorded(attention.Values, pattern_THK, v_TGh, z_THh, settings)

    def gated_act(self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        if not in_graph(gate, up):
            return super().gated_act(kind, gate, up)
        return recorded(functions.GatedAct, kind, gate, up, self._both)

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        if not in_graph(x):
            return super().soft_cap(x, cap)
        return recorded(functions.SoftCap, x, cap, self._both)

    def _in_fp32(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.dtype is torch.float32 else recorded(functions.Widen, x, self._both)


def check_differentiable(ops: Ops, batch: RaggedBatch) -> None:
    """Raises ValueError unless gradients reach every token that the batch attends to."""
    if not ops.differentiable:
        raise ValueError(f"bwd_hooks: {NO_GRADIENTS}")
    if any(batch.past):
        raise ValueError(
            f"kv_cache: gradients do not reach the {max(batch.past)} tokens it holds; run the "
            "whole sequence without it, or without gradients under torch.no_grad()"
        )


def recorded(function: type[torch.autograd.Function], *args: Any) -> torch.Tensor:
    """Returns what a function makes of its arguments, as a node of the graph."""
    result: torch.Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result


def _written(layer_cache: LayerCache) -> tuple[torch.Tensor, torch.Tensor]:
    assert layer_cache.written is not None, "write_kv comes before attention"
    return layer_cache.written
