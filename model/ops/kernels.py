"""The compiled kernels on tensors, unchecked: model/ops/torch_library.py is the checked door.

Tensor names: T ragged rows, B batch, K key positions, d d_model, H heads, G key/value heads,
h d_head, m d_mlp, N pages, n outputs of a linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ... import _core
from ..config import ActFn

_LARGE = 1 << 20  # bytes: half a huge page

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1}
ACT_CODES: dict[ActFn, int] = {"silu": 0, "gelu_tanh": 1}


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """torch.empty, its large results on huge pages that are used again once a tensor is gone:
    fresh ones cost more than the arithmetic that fills them (csrc/cpu/result_pages.h).
    """
    count = math.prod(shape)
    if count * dtype.itemsize < _LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    pages = _core.ResultPages(count * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(shape)


def linear(
    x: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """x [rows, k] times a packed weight [n, k] plus bias -> [rows, n]."""
    x = x.contiguous()
    rows, k = x.shape
    out = empty((rows, n), out_dtype)
    _core.linear(
        x, DTYPE_CODES[x.dtype], rows, k, panels, format, n, k,
        bias, out, DTYPE_CODES[out_dtype], n,
    )  # fmt: skip
    return out


def embedding(
    tokens_T: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    k: int,
    scale: float,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """Rows of a packed matrix [n, k] times scale -> [T, k]."""
    tokens_T = tokens_T.contiguous()
    out = empty((tokens_T.shape[0], k), out_dtype)
    _core.embedding(
        tokens_T, tokens_T.shape[0], panels, format, n, k, scale,
        out, DTYPE_CODES[out_dtype],
    )  # fmt: skip
    return out


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y, in x's dtype."""
    x, y = x.contiguous(), y.contiguous()
    out = empty(x.shape, x.dtype)
    _core.add(
        x, DTYPE_CODES[x.dtype], y, DTYPE_CODES[y.dtype], x.numel(),
        out,
    )  # fmt: skip
    return out


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x widened or rounded, the same bits whatever torch.set_flush_denormal says."""
    x = x.contiguous()
    out = empty(x.shape, dtype)
    _core.cast(x, DTYPE_CODES[x.dtype], x.numel(), out, DTYPE_CODES[dtype])
    return out


def scaled(x: torch.Tensor, factor: float, out_dtype: torch.dtype) -> torch.Tensor:
    """x * factor, rounded once."""
    x = x.contiguous()
    out = empty(x.shape, out_dtype)
    _core.scaled(
        x, DTYPE_CODES[x.dtype], x.numel(), factor, out,
        DTYPE_CODES[out_dtype],
    )  # fmt: skip
    return out


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out_dtype: torch.dtype,
    *,
    stepwise: bool = False,
) -> torch.Tensor:
    """RMS norm over the last axis; `stepwise` rounds before the weight, too."""
    x = x.contiguous()
    d = x.shape[-1]
    out = empty(x.shape, out_dtype)
    norm = _core.stepwise_rms_norm if stepwise else _core.rms_norm
    norm(
        x, None, weight, x.numel() // d, 1, d, d, eps, DTYPE_CODES[x.dtype],
        DTYPE_CODES[out_dtype], out, d, None, None, None,
    )  # fmt: skip
    return out


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of s = x + residual in residual's dtype, and s in x's."""
    x, residual = x.contiguous(), residual.contiguous()
    d = x.shape[-1]
    out, total = empty(x.shape, residual.dtype), empty(x.shape, x.dtype)
    _core.rms_norm(
        x, residual, weight, x.numel() // d, 1, d, d, eps,
        DTYPE_CODES[x.dtype], DTYPE_CODES[residual.dtype], out, d, total, None, None,
    )  # fmt: skip
    return out, total


def rms_scale(x: torch.Tensor, eps: float) -> torch.Tensor:
    """sqrt(mean(x^2) + eps) over the last axis, fp32 [..., 1]."""
    x = x.contiguous()
    d = x.shape[-1]
    scale = empty((*x.shape[:-1], 1))
    _core.rms_norm(
        x, None, None, x.numel() // d, 1, d, d, eps, DTYPE_CODES[x.dtype],
        DTYPE_CODES[x.dtype], None, d, None, scale, None,
    )  # fmt: skip
    return scale


def normalize(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x / scale, fp32."""
    x, scale = x.contiguous(), scale.contiguous()
    d = x.shape[-1]
    out = empty(x.shape)
    _core.normalize(x, scale, x.numel() // d, d, DTYPE_CODES[x.dtype], out)
    return out


def norm_weight(
    normalized: torch.Tensor, weight: torch.Tensor, out_dtype: torch.dtype
) -> torch.Tensor:
    """normalized * weight."""
    normalized = normalized.contiguous()
    d = normalized.shape[-1]
    out = empty(normalized.shape, out_dtype)
    _core.norm_weight(
        normalized, weight, normalized.numel() // d, d, out,
        DTYPE_CODES[out_dtype],
    )  # fmt: skip
    return out


def rope(
    x_THh: torch.Tensor,
    positions_T: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    stepwise: bool = False,
) -> torch.Tensor:
    """Rotates the halves of each head; cos and sin fp32 [positions, h / 2]. `stepwise` rounds the
    tables and each product, too."""
    x_THh, positions_T = x_THh.contiguous(), positions_T.contiguous()
    rows, heads, d_head = x_THh.shape
    out = empty(x_THh.shape, x_THh.dtype)
    rotate = _core.stepwise_rope if stepwise else _core.rope
    rotate(
        x_THh, DTYPE_CODES[x_THh.dtype], rows, heads, d_head, heads * d_head,
        positions_T, cos, sin, cos.shape[0], out,
        heads * d_head,
    )  # fmt: skip
    return out


def kv_write(
    k_TGh: torch.Tensor,
    v_TGh: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts_B1: torch.Tensor,
    past_B: torch.Tensor,
) -> None:
    """Writes keys and values to the positions from past_B on."""
    k_TGh, v_TGh = k_TGh.contiguous(), v_TGh.contiguous()
    _, kv_heads, d_head = k_TGh.shape
    _core.kv_write(
        k_TGh, v_TGh, DTYPE_CODES[k_TGh.dtype], kv_heads * d_head,
        kv_heads * d_head, starts_B1, past_B, past_B.shape[0], kv_heads,
        d_head, page_table, page_table.shape[1], k_pages,
        v_pages,
    )  # fmt: skip


def attention(
    q_THh: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts_B1: torch.Tensor,
    past_B: torch.Tensor,
    scale: float,
    window: int,
    cap: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """z [T, H, h] and the log-sum-exp of the scores, fp32 [T, H]; window 0 and cap 0 are none."""
    q_THh = q_THh.contiguous()
    rows, heads, d_head = q_THh.shape
    z_THh, lse_TH = empty(q_THh.shape, q_THh.dtype), empty((rows, heads))
    _core.attention(
        q_THh, DTYPE_CODES[q_THh.dtype], heads * d_head, heads, k_pages.shape[1],
        d_head, scale, cap, window, starts_B1, past_B, past_B.shape[0],
        page_table, page_table.shape[1], k_pages, v_pages,
        z_THh, heads * d_head, lse_TH,
    )  # fmt: skip
    return z_THh, lse_TH


def attention_scores(
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
) -> torch.Tensor:
    """Scores of the rows in rows_R, fp32 [R, H, n_keys], -inf where masked."""
    q_THh, rows_R = q_THh.contiguous(), rows_R.contiguous()
    _, heads, d_head = q_THh.shape
    scores = empty((rows_R.shape[0], heads, n_keys))
    _core.attention_scores(
        q_THh, DTYPE_CODES[q_THh.dtype], heads * d_head, heads, k_pages.shape[1],
        d_head, scale, cap, window, starts_B1, past_B, past_B.shape[0],
        page_table, page_table.shape[1], k_pages, rows_R,
        rows_R.shape[0], n_keys, scores,
    )  # fmt: skip
    return scores


def scale_scores(x: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """fp32 dot products rounded to `dtype`, times scale, rounded again."""
    x = x.contiguous()
    out = empty(x.shape, dtype)
    _core.scale_scores(x, scale, x.numel(), DTYPE_CODES[dtype], out)
    return out


def attention_values(
    pattern_THK: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts_B1: torch.Tensor,
    past_B: torch.Tensor,
    window: int,
) -> torch.Tensor:
    """Sum over visible keys of pattern * v -> [T, H, h]."""
    pattern_THK = pattern_THK.contiguous()
    rows, heads, n_keys = pattern_THK.shape
    _, kv_heads, _, d_head = v_pages.shape
    z_THh = empty((rows, heads, d_head), v_pages.dtype)
    _core.attention_values(
        pattern_THK, n_keys, heads, kv_heads, d_head, DTYPE_CODES[v_pages.dtype],
        window, starts_B1, past_B, past_B.shape[0], page_table,
        page_table.shape[1], v_pages, z_THh, heads * d_head,
    )  # fmt: skip
    return z_THh


def gated_act(
    kind: ActFn, gate: torch.Tensor, up: torch.Tensor, *, stepwise: bool = False
) -> torch.Tensor:
    """act(gate) * up over [rows, m]; `stepwise` rounds act(gate), too."""
    gate, up = gate.contiguous(), up.contiguous()
    rows, m = gate.shape
    out = empty(gate.shape, gate.dtype)
    apply = _core.stepwise_gated_act if stepwise else _core.gated_act
    apply(
        ACT_CODES[kind], gate, up, rows, m, m, m, DTYPE_CODES[gate.dtype],
        out, m,
    )  # fmt: skip
    return out


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the last axis, fp32; a row of -inf gives zeros."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    n = x.shape[-1]
    _core.softmax(x, x.numel() // n, n, out)
    return out


def log_softmax(x: torch.Tensor) -> torch.Tensor:
    """(x - max) - log(sum exp(x - max)) over the last axis, fp32."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    n = x.shape[-1]
    _core.log_softmax(x, x.numel() // n, n, out)
    return out


def logsumexp(x: torch.Tensor) -> torch.Tensor:
    """max + log(sum exp(x - max)) over the last axis, fp32 [...]."""
    x = x.contiguous()
    out = empty(x.shape[:-1])
    _core.logsumexp(x, out.numel(), x.shape[-1], out)
    return out


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    ignored: int = -100,
    *,
    mean: bool = True,
) -> torch.Tensor:
    """Losses of fp32 or bf16 logits [rows, classes] as fp32 [rows], 0 where `ignored`; or the mean
    of the others, a scalar. Raises ValueError for a mean of none, IndexError for no class."""
    logits, targets = logits.contiguous(), targets.contiguous()
    rows, n = logits.shape
    losses, average = empty((rows,)), empty((1,)) if mean else None
    _core.cross_entropy(
        logits, DTYPE_CODES[logits.dtype], targets, rows, n, ignored, smoothing, losses, average
    )
    return losses if average is None else average[0]


def exp(x: torch.Tensor) -> torch.Tensor:
    """e^x, fp32, at most 1 ULP off."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    _core.exp(x, x.numel(), out)
    return out


def log(x: torch.Tensor) -> torch.Tensor:
    """Natural logarithm, fp32, at most 1 ULP off."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    _core.log(x, x.numel(), out)
    return out


def tanh(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent, fp32, at most 1 ULP off."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    _core.tanh(x, x.numel(), out)
    return out


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """cap * tanh(x / cap), fp32."""
    x = x.contiguous()
    out = empty(x.shape, x.dtype)
    _core.soft_cap(x, x.numel(), cap, out)
    return out
