"""The operations of model/ops/interface.py on the compiled core: bits fixed by docs/numerics.md.

Tensor names: T ragged rows, K key positions, d d_model, H heads, G key/value heads, h d_head,
m d_mlp, n outputs of a linear.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..batch import RaggedBatch
from ..cache.kv_cache import LayerCache
from ..config import ActFn, ModelConfig
from ..rope.scaling import RopeScaling, require_fixed
from ..rope.tables import RopeTables
from ..weights.checkpoint import Format, StoredMatrix
from . import kernels as cpu_kernels
from .adapted import AdaptedMatrix
from .kernel_set import Derivatives, Kernels
from .packed import PackedWeight, narrowest, pack
from .policy import Policy
from .weight_gradients import WeightGradients
from .weight_pages import WeightPages
from .whole import WholeMatrices

STORAGE = ("packed", "fp32")
"""How weights are kept: the narrowest exact format, or always fp32 (same bits, more memory)."""


class NativeOps(WholeMatrices):
    """Kernels on the CPU. Nothing here computes gradients: model/gradients does."""

    kernels: Kernels = cpu_kernels
    derivatives: Derivatives | None = None
    """The kernels of gradients, where they are not the CPU's (model/gradients/kernels.py)."""
    is_recordable: bool = True
    """Whether model/gradients has these operations' derivatives."""
    differentiable: bool = False
    sums_gradients: bool = False
    """Whether gradients of weights are wanted, so that every block runs one by one."""
    device: torch.device = torch.device("cpu")
    computes = torch.float32
    """The `policy.compute` that the operations round as."""

    def __init__(self, policy: Policy, storage: str = "packed") -> None:
        if policy.compute is not self.computes:
            raise ValueError(
                f'dtype = {policy.name!r} has no native kernels: load with backend="torch"'
            )
        if storage not in STORAGE:
            raise ValueError(
                f"storage = {storage!r}: expected one of {', '.join(map(repr, STORAGE))}"
            )
        self.policy = policy
        self._storage = storage
        self._pages = WeightPages()
        self.rope_tables = RopeTables()
        self.trained: WeightGradients | None = None
        """The sums of weight gradients, where weights are trained."""

    def adopt(self, config: ModelConfig) -> None:
        for layer in config.layers:
            require_fixed(layer.rope_scaling)

    def weight(self, matrix: StoredMatrix) -> PackedWeight:
        rounded = self.policy.weight is torch.bfloat16
        if self._storage == "fp32":
            format = Format.F32
        else:
            format = Format.BF16 if rounded else narrowest(matrix)
        rounded = rounded and matrix.format is not Format.BF16
        return pack(matrix, format, rounded=rounded, pages=self._pages)

    def storage(self, weight: PackedWeight) -> tuple[str, int]:
        return weight.format.name, weight.data.numel()

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        return vector.float().contiguous()

    def embed(self, tokens_T: torch.Tensor, weight: PackedWeight, scale: float) -> torch.Tensor:
        return self.kernels.embedding(
            tokens_T, weight.data, weight.format, weight.n, weight.k, scale, self.policy.residual
        )

    def linear(
        self,
        x: torch.Tensor,
        weight: PackedWeight,
        bias: torch.Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        out_dtype = out_dtype or self.policy.activation
        if isinstance(weight, AdaptedMatrix):
            return self._adapted(x, weight, bias, out_dtype)
        return self.kernels.linear(x, weight.data, weight.format, weight.n, bias, out_dtype)

    def _adapted(
        self,
        x: torch.Tensor,
        weight: AdaptedMatrix,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype,
    ) -> torch.Tensor:
        """round(linear(x, W) + linear(linear(x, A), B) * s), A's output rounded to activations."""
        whole = self.linear(x, weight.base, bias, out_dtype=torch.float32)
        low = self.linear(x, weight.a)
        change = self.kernels.scaled(
            self.linear(low, weight.b, out_dtype=torch.float32), weight.scale, torch.float32
        )
        total = self.kernels.add(whole, change)
        return total if out_dtype is torch.float32 else self.kernels.cast(total, out_dtype)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.kernels.add(x, y)

    def fork(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
        return (x,) * n

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def rearrange(
        self,
        x: torch.Tensor,
        there: Callable[[torch.Tensor], torch.Tensor],
        back: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        return there(x)

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        return self.kernels.rms_scale(x, eps)

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.kernels.normalize(x, scale)

    def norm_weight(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self.kernels.norm_weight(normalized, weight, self.policy.activation)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return self.kernels.rms_norm(x, weight, eps, self.policy.activation)

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        table = self.rope_tables.upto(theta, x_THh.shape[-1], int(positions_T.max()) + 1, scaling)
        return self.kernels.rope(x_THh, positions_T, table.cos, table.sin)

    def write_kv(
        self, layer_cache: LayerCache, batch: RaggedBatch, k_TGh: torch.Tensor, v_TGh: torch.Tensor
    ) -> None:
        self.kernels.kv_write(
            k_TGh,
            v_TGh,
            layer_cache.k_pages,
            layer_cache.v_pages,
            layer_cache.page_table,
            batch.starts_B1,
            batch.past_B,
        )

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
        z_THh, _ = self.kernels.attention(
            q_THh,
            layer_cache.k_pages,
            layer_cache.v_pages,
            layer_cache.page_table,
            batch.starts_B1,
            batch.past_B,
            scale,
            window or 0,
            cap or 0.0,
        )
        return z_THh

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
        return self.kernels.attention_scores(
            q_THh,
            layer_cache.k_pages,
            layer_cache.page_table,
            batch.starts_B1,
            batch.past_B,
            scale,
            window or 0,
            torch.arange(batch.n_rows, device="cpu") if rows is None else rows,
            batch.n_keys,
            cap or 0.0,
        )

    def attention_pattern(self, scores_THK: torch.Tensor) -> torch.Tensor:
        return self.kernels.softmax(scores_THK)

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        return self.kernels.attention_values(
            pattern_THK,
            layer_cache.v_pages,
            layer_cache.page_table,
            batch.starts_B1,
            batch.past_B,
            window or 0,
        )

    def gated_act(self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self.kernels.gated_act(kind, gate, up)

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        return self.kernels.soft_cap(x, cap)
