"""The native operations on an NVIDIA GPU, with the bits that they have on the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...batch import RaggedBatch
from ...cache.kv_cache import LayerCache
from ...rope.scaling import RopeScaling
from ...rope.tables import RopeTable, RopeTables
from ...weights.checkpoint import StoredMatrix
from ..native import NativeOps
from ..native_huggingface import NativeHuggingFaceOps, require_no_cap
from ..packed import PackedWeight
from ..policy import Policy
from .derivatives import CudaDerivatives
from .kernels import CudaKernels
from .sampler import CudaSampler
from .sequences import Sequences


class DeviceRopeTables(RopeTables):
    """Tables that the CPU computes, kept on a device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._there: dict[int, tuple[RopeTable, RopeTable]] = {}

    def upto(
        self, theta: float, d_head: int, n_positions: int, scaling: RopeScaling | None = None
    ) -> RopeTable:
        table = super().upto(theta, d_head, n_positions, scaling)
        if self._device.type == "cpu":
            return table
        if id(table) not in self._there:  # the table is kept with its copy: its id stays its own
            moved = RopeTable(table.cos.to(self._device), table.sin.to(self._device))
            self._there[id(table)] = (table, moved)
        return self._there[id(table)][1]


class CudaOps(NativeOps):
    """`NativeOps` on the kernels of a CUDA library."""

    kernels: CudaKernels

    def __init__(self, policy: Policy, storage: str, kernels: CudaKernels) -> None:
        super().__init__(policy, storage)
        self.kernels = kernels
        self.derivatives = CudaDerivatives(kernels)
        self.sampler = CudaSampler(kernels)
        self.device = kernels.device
        self.rope_tables = DeviceRopeTables(kernels.device)

    @property
    def arithmetic(self) -> str:
        return (NativeHuggingFaceOps if self.policy.stepwise else NativeOps).__name__

    def weight(self, matrix: StoredMatrix) -> PackedWeight:
        packed = super().weight(matrix)
        return replace(packed, data=packed.data.to(self.device))

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        return super().vector(vector).to(self.device)


class CudaHuggingFaceOps(CudaOps, NativeHuggingFaceOps):
    """`NativeHuggingFaceOps` on the kernels of a CUDA library."""

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
        require_no_cap(self.policy, cap)
        z_THh, _ = self.kernels.attention(
            q_THh,
            layer_cache.k_pages,
            layer_cache.v_pages,
            layer_cache.page_table,
            batch.starts_B1,
            batch.past_B,
            scale,
            window or 0,
            stepwise=True,
        )
        return z_THh


class CudaStepOps(CudaOps):
    """The operations of a pass of one token a sequence, of which the device has been told: they
    wait for nothing, so that a graph can hold them. Keys of scores and patterns may be more than
    there are, masked."""

    def __init__(self, ops: CudaOps, where: Sequences) -> None:
        vars(self).update(vars(ops))
        self._where = where

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        theta: float,
        scaling: RopeScaling | None = None,
    ) -> torch.Tensor:
        table = self.rope_tables.upto(theta, x_THh.shape[-1], self._where.keys, scaling)
        return self.kernels.rope(x_THh, self._where.past_B, table.cos, table.sin)

    def write_kv(
        self, layer_cache: LayerCache, batch: RaggedBatch, k_TGh: torch.Tensor, v_TGh: torch.Tensor
    ) -> None:
        where, pages = self._where, (layer_cache.k_pages, layer_cache.v_pages)
        self.kernels.kv_write(k_TGh, v_TGh, *pages, where.table, where.starts_B1, where.past_B)

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
        pages = layer_cache.k_pages, layer_cache.v_pages
        z_THh, _ = self.kernels.attend(q_THh, *pages, self._where, scale, window or 0, cap or 0.0)
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
        assert rows is None  # a block of which some rows are kept is not tapped
        where = self._where
        return self.kernels.scores_at(
            q_THh, layer_cache.k_pages, where, scale, window or 0, where.keys, cap or 0.0
        )

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        layer_cache: LayerCache,
        batch: RaggedBatch,
        *,
        window: int | None,
    ) -> torch.Tensor:
        return self.kernels.values_at(pattern_THK, layer_cache.v_pages, self._where, window or 0)


def cuda_ops(policy: Policy, storage: str, kernels: CudaKernels) -> CudaOps:
    """Returns the operations of a policy on these kernels."""
    return (CudaHuggingFaceOps if policy.stepwise else CudaOps)(policy, storage, kernels)
