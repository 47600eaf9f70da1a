"""The CUDA kernels of gradients on tensors, unchecked: the functions of model/gradients/kernels.py.

Tensor names: Q query rows of a block, K key positions, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

import torch

from ...config import ActFn
from ..kernels import ACT_CODES, DTYPE_CODES
from .kernels import CudaKernels


class CudaDerivatives:
    """Derivatives on the device of some kernels."""

    def __init__(self, kernels: CudaKernels) -> None:
        self.library = kernels.library
        self._empty = kernels.empty

    def __deepcopy__(self, memo: object) -> CudaDerivatives:
        """Returns itself: it holds no state of a model."""
        return self

    def normalize_backward(
        self, dn: torch.Tensor, x: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dn, x, scale = dn.contiguous(), x.contiguous(), scale.contiguous()
        d = x.shape[-1]
        dx, dscale = self._empty(x.shape), self._empty(scale.shape)
        self.library.launch("normalize_backward", dn, x, scale, x.numel() // d, d, dx, dscale)
        return dx, dscale

    def rms_scale_backward(
        self, dscale: torch.Tensor, x: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        dscale, x, scale = dscale.contiguous(), x.contiguous(), scale.contiguous()
        d = x.shape[-1]
        dx = self._empty(x.shape)
        self.library.launch("rms_scale_backward", dscale, x, scale, x.numel() // d, d, dx)
        return dx

    def rms_norm_backward(
        self, dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        dy, x = dy.contiguous(), x.contiguous()
        d = x.shape[-1]
        dx = self._empty(x.shape, x.dtype)
        self.library.launch(
            "rms_norm_backward", dy, DTYPE_CODES[dy.dtype], x, DTYPE_CODES[x.dtype], weight,
            x.numel() // d, d, eps, dx,
        )  # fmt: skip
        return dx

    def softmax_backward(self, pattern: torch.Tensor, dpattern: torch.Tensor) -> torch.Tensor:
        pattern, dpattern = pattern.contiguous(), dpattern.contiguous()
        out = self._empty(pattern.shape)
        n = pattern.shape[-1]
        self.library.launch("softmax_backward", pattern, dpattern, pattern.numel() // n, n, out)
        return out

    def soft_cap_backward(self, dy: torch.Tensor, y: torch.Tensor, cap: float) -> torch.Tensor:
        dy, y = dy.contiguous(), y.contiguous()
        dx = self._empty(y.shape)
        self.library.launch("soft_cap_backward", dy, y, y.numel(), cap, dx)
        return dx

    def gated_act_backward(
        self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor, dpost: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up, dpost = gate.contiguous(), up.contiguous(), dpost.contiguous()
        dgate, dup = self._empty(gate.shape, gate.dtype), self._empty(up.shape, up.dtype)
        self.library.launch(
            "gated_act_backward", ACT_CODES[kind], gate, up, dpost, gate.numel(),
            DTYPE_CODES[gate.dtype], dgate, dup,
        )  # fmt: skip
        return dgate, dup

    def key_sums(
        self, weight_QHK: torch.Tensor, x_QHh: torch.Tensor, n_kv_heads: int
    ) -> torch.Tensor:
        weight_QHK, x_QHh = weight_QHK.contiguous(), x_QHh.contiguous()
        queries, heads, keys = weight_QHK.shape
        d_head = x_QHh.shape[-1]
        out = self._empty((keys, n_kv_heads, d_head))
        self.library.launch(
            "attention_key_sums", weight_QHK, x_QHh, DTYPE_CODES[x_QHh.dtype], queries, heads,
            n_kv_heads, keys, d_head, out,
        )  # fmt: skip
        return out
