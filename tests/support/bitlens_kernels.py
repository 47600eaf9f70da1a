"""bitlens's own kernels as implementations: inputs by name in, the stored output out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitlens import _core
from bitlens.model.cache.page_pool import PAGE
from bitlens.model.ops import kernels
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

Tensor = torch.Tensor


def _matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = b.float().mT.contiguous()
    panels = pack(StoredMatrix(Format.F32, rows.shape[0], rows.shape[1], rows))
    bias = None if bias is None else bias.float().contiguous()
    return kernels.linear(a.contiguous(), panels.data, panels.format, panels.n, bias, a.dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return kernels.rms_norm(x.contiguous(), weight.float(), eps, x.dtype)


def _rope(
    x: Tensor,
    positions: Tensor | None = None,
    theta: float | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    inv_freq: tuple[float, ...] | None = None,
    attention_factor: float = 1.0,
) -> Tensor:
    """x [.., T, d] with one position, or one row of the tables, a row of T."""
    if cos is None or sin is None:
        assert positions is not None
        frequencies = torch.empty(x.shape[-1] // 2, dtype=torch.float64)
        if inv_freq is None:
            _core.rope_inv_freq(theta or 10000.0, x.shape[-1], frequencies)
        else:
            frequencies.copy_(torch.tensor(inv_freq, dtype=torch.float64))
        cos, sin = _tables(positions, frequencies, attention_factor)
    flat = x.reshape(-1, *x.shape[-2:]).transpose(0, 1).contiguous()
    places = torch.arange(x.shape[-2])
    turned = kernels.rope(flat, places, cos.float().contiguous(), sin.float().contiguous())
    return turned.transpose(0, 1).reshape(x.shape)


def _tables(positions: Tensor, frequencies: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """A row for each position: a table of all up to 2^31 would not fit."""
    half = len(frequencies)
    cos, sin = torch.empty(2, len(positions), half)
    for i, position in enumerate(positions.tolist()):
        at = cos[i], sin[i]
        _core.rope_table(frequencies, half, position, 1, *at, factor)
    return cos, sin


def _swiglu(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    gate, up = (x.reshape(-1, x.shape[-1]).contiguous() for x in (gate, up))
    return kernels.gated_act("silu" if activation == "silu" else "gelu_tanh", gate, up)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    past: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """q [H, T, d], k, v [G, K, d]. The kernel's queries stand at the end of their keys: others come
    one by one, with those that they see.
    """
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if causal and past in (None, n_keys - n_queries):
        return _at_the_end(q, k, v, scale, window, cap)
    rows = []
    for i in range(n_queries):
        start, stop = 0, n_keys
        if causal:
            assert past is not None
            stop = min(past + i + 1, n_keys)
            start = 0 if window is None else max(past + i + 1 - window, 0)
        keys, values = k[:, start:stop], v[:, start:stop]
        row = q[:, i : i + 1]
        none = torch.zeros(*row.shape[:-1], v.shape[-1], dtype=q.dtype)
        rows.append(_at_the_end(row, keys, values, scale, None, cap) if start < stop else none)
    return torch.cat(rows, 1)


def _at_the_end(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int | None, cap: float | None
) -> Tensor:
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


def _cross_entropy(
    x: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    ignored: int = -100,
    reduction: str = "mean",
) -> Tensor:
    return kernels.cross_entropy(x, targets, smoothing, ignored, mean=reduction == "mean")


KERNELS: dict[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "rms_norm": _rms_norm,
    "softmax": lambda x: kernels.softmax(x.contiguous()),
    "logsumexp": lambda x: kernels.logsumexp(x.contiguous()),
    "cross_entropy": _cross_entropy,
    "attention": _attention,
    "soft_cap": lambda x, cap: kernels.soft_cap(x.contiguous(), cap),
    "rope": _rope,
    "swiglu": _swiglu,
}
"""Those operations that have a kernel of their own. softmax, logsumexp and soft_cap take fp32
only."""
