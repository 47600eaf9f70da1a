"""bitlens's own kernels as implementations: inputs by name in, the stored output out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitlens.model.kv_cache import PAGE
from bitlens.model.ops import kernels
from bitlens.model.ops.packed import pack
from bitlens.model.rope.tables import RopeTables
from bitlens.model.weights.checkpoint import Format, StoredMatrix

Tensor = torch.Tensor


def _matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = b.float().mT.contiguous()
    panels = pack(StoredMatrix(Format.F32, rows.shape[0], rows.shape[1], rows))
    bias = None if bias is None else bias.float().contiguous()
    return kernels.linear(a.contiguous(), panels.data, panels.format, panels.n, bias, a.dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return kernels.rms_norm(x.contiguous(), weight.float(), eps, x.dtype)


def _rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """x [.., T, d] with one position a row of T."""
    flat = x.reshape(-1, *x.shape[-2:]).transpose(0, 1).contiguous()
    table = RopeTables().upto(theta, x.shape[-1], int(positions.max()) + 1)
    return kernels.rope(flat, positions, table.cos, table.sin).transpose(0, 1).reshape(x.shape)


def _swiglu(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    gate, up = (x.reshape(-1, x.shape[-1]).contiguous() for x in (gate, up))
    return kernels.gated_act("silu" if activation == "silu" else "gelu_tanh", gate, up)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    scale: float | None = None,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """q [H, T, d] at the end of k, v [G, K, d]; only causal attention has a kernel."""
    assert causal
    keys, values = (x.transpose(0, 1).contiguous() for x in (k, v))
    (n_keys, groups, d), queries = keys.shape, q.shape[1]
    pages = -(-n_keys // PAGE)
    table = torch.arange(pages, dtype=torch.int32)[None]
    k_pages = torch.empty(pages, groups, d, PAGE, dtype=q.dtype)
    v_pages = torch.empty(pages, groups, PAGE, d, dtype=q.dtype)
    starts, past = torch.tensor([0, n_keys]), torch.tensor([0])
    kernels.kv_write(keys, values, k_pages, v_pages, table, starts, past)
    starts, past = torch.tensor([0, queries]), torch.tensor([n_keys - queries])
    rows = q.transpose(0, 1).contiguous()
    scale = d**-0.5 if scale is None else scale
    options = (scale, window or 0, cap or 0.0)
    z, _ = kernels.attention(rows, k_pages, v_pages, table, starts, past, *options)
    return z.transpose(0, 1)


KERNELS: dict[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "rms_norm": _rms_norm,
    "softmax": lambda x: kernels.softmax(x.contiguous()),
    "logsumexp": lambda x: kernels.logsumexp(x.contiguous()),
    "attention": _attention,
    "soft_cap": lambda x, cap: kernels.soft_cap(x.contiguous(), cap),
    "rope": _rope,
    "swiglu": _swiglu,
}
"""Those operations that have a kernel of their own. softmax, logsumexp and soft_cap take fp32
only."""
