"""The stepwise policy on the compiled core: rounded where transformers' eager models round in bf16
(docs/numerics.md, Stepwise rounding), in the orders of the other policies.

A policy for parity: operations are composed from kernels, and blocks do not run fused.
Tensor names: T ragged rows, K key positions, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ActFn, ModelConfig
from ..config_error import ConfigError
from ..rope.scaling import RopeScaling
from .native import NativeOps
from .packed import PackedWeight
from .policy import Policy
from .torch_huggingface import rounds_normalized

_SCORES = 1 << 20
"""Scores that attention holds at a time, unless one row has more."""


class NativeHuggingFaceOps(NativeOps):
    """`NativeOps` that rounds scores, pattern, normalized and act(gate), tables and products."""

    computes = torch.bfloat16
    is_recordable = False

    _rounds_normalized: bool

    def adopt(self, config: ModelConfig) -> None:
        super().adopt(config)
        self._rounds_normalized = rounds_normalized(config)

    def linear(
        self,
        x: torch.Tensor,
        weight: PackedWeight,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Rounded to bf16 whatever `out_dtype` it is kept in: logits are bf16 numbers."""
        y = super().linear(x, weight, bias)
        return self.kernels.cast(y, out_dtype) if out_dtype is torch.float32 else y

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """bf16, or fp32 where the norm rounds once only (Gemma)."""
        normalized = super().normalize(x, scale)
        return self._narrow(normalized) if self._rounds_normalized else normalized

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return super().norm_weight(self.kernels.cast(normalized, torch.float32), weight)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return self.kernels.rms_norm(
            x, weight, eps, self.policy.activation, stepwise=self._rounds_normalized
        )

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        table = self.rope_tables.upto(theta, x_THh.shape[-1], int(positions_T.max()) + 1, scaling)
        return self.kernels.rope(x_THh, positions_T, table.cos, table.sin, stepwise=True)

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
        z = []
        for rows, part, cache in _row_ranges(batch, layer_cache, q_THh.shape[1]):
            scores = self.attention_scores(
                q_THh[rows], cache, part, scale=scale, cap=cap, window=window
            )
            pattern = self.attention_pattern(scores)
            z.append(self.attention_values(pattern, cache, part, window=window))
        return torch.cat(z)

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
        require_no_cap(self.policy, cap)
        dots = super().attention_scores(
            q_THh, layer_cache, batch, scale=1.0, cap=None, window=window, rows=rows
        )
        return self.kernels.scale_scores(dots, scale, torch.bfloat16)

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        return self._narrow(self.kernels.softmax(self.kernels.cast(scores_THK, torch.float32)))

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        pattern = self.kernels.cast(pattern_THK, torch.float32)
        return super().attention_values(pattern, layer_cache, batch, window=window)

    def gated_act(self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self.kernels.gated_act(kind, gate, up, stepwise=True)

    def _narrow(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernels.cast(x, torch.bfloat16)


def require_no_cap(policy: Policy, cap: float | None) -> None:
    """Raises ConfigError for soft-capped scores, which have no stepwise rounding."""
    if cap is not None:
        raise ConfigError(f"{policy.name}: where transformers rounds soft caps is not stated")


def _row_ranges(
    batch: RaggedBatch, layer_cache: LayerCache, n_heads: int
) -> Iterator[tuple[slice, RaggedBatch, LayerCache]]:
    """A batch cut into rows of one sequence each: which, as a batch, and the sequence's cache."""
    for b, (length, past) in enumerate(zip(batch.lengths, batch.past, strict=True)):
        cache = LayerCache(
            layer_cache.k_pages, layer_cache.v_pages, layer_cache.page_table[b : b + 1]
        )
        step = max(1, _SCORES // (n_heads * batch.totals[b]))
        for first in range(0, length, step):
            n = min(step, length - first)
            start = batch.starts[b] + first
            part = RaggedBatch(n, [n], [past + first], [0], [0], batch.device)
            yield slice(start, start + n), part, cache
