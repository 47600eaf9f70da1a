"""The kernels that the native operations and their gradients are made of, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from ..config import ActFn


class Kernels(Protocol):
    """The functions of model/ops/kernels.py, there on the CPU; in model/ops/cuda on a GPU."""

    def linear(
        self,
        x: torch.Tensor,
        panels: torch.Tensor,
        format: int,
        n: int,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype,
    ) -> torch.Tensor: ...

    def embedding(
        self,
        tokens_T: torch.Tensor,
        panels: torch.Tensor,
        format: int,
        n: int,
        k: int,
        scale: float,
        out_dtype: torch.dtype,
    ) -> torch.Tensor: ...

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor: ...

    def cast(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor: ...

    def scaled(self, x: torch.Tensor, factor: float, out_dtype: torch.dtype) -> torch.Tensor: ...

    def rms_norm(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out_dtype: torch.dtype,
        *,
        stepwise: bool = False,
    ) -> torch.Tensor: ...

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor: ...

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor: ...

    def norm_weight(
        self, normalized: torch.Tensor, weight: torch.Tensor, out_dtype: torch.dtype
    ) -> torch.Tensor: ...

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *,
        stepwise: bool = False,
    ) -> torch.Tensor: ...

    def kv_write(
        self,
        k_TGh: torch.Tensor,
        v_TGh: torch.Tensor,
        k_pages: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
    ) -> None: ...

    def attention(
        self,
        q_THh: torch.Tensor,
        k_pages: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
        scale: float,
        window: int,
        cap: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def attention_scores(
        self,
        q_THh: torch.Tensor,
        k_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
        scale: float,
        window: int,
        rows_R: torch.Tensor,
        n_keys: int,
        cap: float = 0.0,
    ) -> torch.Tensor: ...

    def scale_scores(self, x: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor: ...

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
        window: int,
    ) -> torch.Tensor: ...

    def gated_act(
        self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor, *, stepwise: bool = False
    ) -> torch.Tensor: ...

    def softmax(self, x: torch.Tensor) -> torch.Tensor: ...

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor: ...


class OperatorKernels(Kernels, Protocol):
    """Kernels, with those that only `torch.ops.bitlens` calls."""

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def log_softmax(self, x: torch.Tensor) -> torch.Tensor: ...

    def logsumexp(self, x: torch.Tensor) -> torch.Tensor: ...

    def cross_entropy(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        smoothing: float = 0.0,
        ignored: int = -100,
        *,
        mean: bool = True,
    ) -> torch.Tensor: ...


class Derivatives(Protocol):
    """The functions of model/gradients/kernels.py, there on the CPU; in model/ops/cuda on a GPU."""

    def normalize_backward(
        self, dn: torch.Tensor, x: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def rms_scale_backward(
        self, dscale: torch.Tensor, x: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor: ...

    def rms_norm_backward(
        self, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor: ...

    def softmax_backward(self, pattern: torch.Tensor, dpattern: torch.Tensor) -> torch.Tensor: ...

    def soft_cap_backward(self, dy: torch.Tensor, y: torch.Tensor, cap: float) -> torch.Tensor: ...

    def gated_act_backward(
        self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor, dpost: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def key_sums(
        self, weight_QHK: torch.Tensor, x_QHh: torch.Tensor, n_kv_heads: int
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class KernelPair:
    """The kernels of one device: an operation's own and its derivative's."""

    forward: Kernels
    backward: Derivatives
