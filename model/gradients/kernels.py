"""The compiled derivatives on tensors, unchecked, as model/ops/kernels.py is.

Tensor names: T ragged rows, Q query rows of a block, K key positions, d d_model, m d_mlp, H heads,
G key/value heads, R heads of a group, h d_head, p pairs (head of a group, query).
"""

from __future__ import annotations

import torch

from ... import _core
from ..config import ActFn
from ..ops.kernels import ACT_CODES, DTYPE_CODES, empty, linear
from ..ops.packed import pack
from ..weights.checkpoint import Format, StoredMatrix

_FORMATS = {torch.float32: Format.F32, torch.bfloat16: Format.BF16}


def normalize_backward(
    dn: torch.Tensor, x: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Differentiates x / scale; returns the gradients of x and of scale [..., 1], all fp32."""
    dn, x, scale = dn.contiguous(), x.contiguous(), scale.contiguous()
    d = x.shape[-1]
    dx, dscale = empty(x.shape), empty(scale.shape)
    _core.normalize_backward(
        dn, x, scale, x.numel() // d, d, dx,
        dscale,
    )  # fmt: skip
    return dx, dscale


def rms_scale_backward(dscale: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Differentiates sqrt(mean(x^2) + eps), all fp32."""
    dscale, x, scale = dscale.contiguous(), x.contiguous(), scale.contiguous()
    d = x.shape[-1]
    dx = empty(x.shape)
    _core.rms_scale_backward(dscale, x, scale, x.numel() // d, d, dx)
    return dx


def rms_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Differentiates the norm over the last axis, in x's dtype."""
    dy, x = dy.contiguous(), x.contiguous()
    d = x.shape[-1]
    dx = empty(x.shape, x.dtype)
    _core.rms_norm_backward(
        dy, x, weight, x.numel() // d, d, eps,
        DTYPE_CODES[x.dtype], DTYPE_CODES[dy.dtype], dx,
    )  # fmt: skip
    return dx


def softmax_backward(pattern: torch.Tensor, dpattern: torch.Tensor) -> torch.Tensor:
    """Differentiates the softmax over the last axis, fp32.

    dpattern is finite where the pattern is 0.
    """
    pattern, dpattern = pattern.contiguous(), dpattern.contiguous()
    out = empty(pattern.shape)
    n = pattern.shape[-1]
    _core.softmax_backward(pattern, dpattern, pattern.numel() // n, n, out)
    return out


def soft_cap_backward(dy: torch.Tensor, y: torch.Tensor, cap: float) -> torch.Tensor:
    """Differentiates y = cap * tanh(x / cap), fp32."""
    dy, y = dy.contiguous(), y.contiguous()
    dx = empty(y.shape)
    _core.soft_cap_backward(dy, y, y.numel(), cap, dx)
    return dx


def gated_act_backward(
    kind: ActFn, gate: torch.Tensor, up: torch.Tensor, dpost: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Differentiates act(gate) * up; returns the gradients of gate and up, in their dtype."""
    gate, up, dpost = gate.contiguous(), up.contiguous(), dpost.contiguous()
    dgate, dup = empty(gate.shape, gate.dtype), empty(up.shape, up.dtype)
    _core.gated_act_backward(
        ACT_CODES[kind], gate, up, dpost, gate.numel(),
        DTYPE_CODES[gate.dtype], dgate, dup,
    )  # fmt: skip
    return dgate, dup


def key_sums(weight_QHK: torch.Tensor, x_QHh: torch.Tensor, n_kv_heads: int) -> torch.Tensor:
    """Returns fp32 [K, G, h]: of each key `linear`'s sum of weight * x over pairs, heads of the
    group ascending, then queries."""
    weights, rows = (x.chunk(n_kv_heads, dim=1) for x in (weight_QHK, x_QHh))
    sums = [
        _product(_of_pairs(weight), _of_pairs(x)) for weight, x in zip(weights, rows, strict=True)
    ]
    return torch.stack(sums, dim=1)


def _of_pairs(x_QRn: torch.Tensor) -> torch.Tensor:
    """[n, p]: the heads of a group one after the other, each with all queries."""
    return x_QRn.permute(2, 1, 0).flatten(1).contiguous()


def _product(w_Kp: torch.Tensor, x_hp: torch.Tensor) -> torch.Tensor:
    """`linear` -> fp32 [K, h]."""
    d_head, n_pairs = x_hp.shape
    matrix = pack(StoredMatrix(_FORMATS[x_hp.dtype], d_head, n_pairs, x_hp))
    return linear(w_Kp, matrix.data, matrix.format, matrix.n, None, torch.float32)
