"""`torch.ops.bitlens.*`: the compiled kernels as torch operators, checked, with fake kernels.

Registered with `torch.library.Library` (cheaper a call than `custom_op`). Every argument is checked
before an address reaches a kernel: a bad shape, dtype, device or index raises and reads nothing.
Where tensors are on a GPU, all are on one, and so are the kernels. None of them computes gradients.
Tensor names as in model/ops/kernels.py.
"""

from __future__ import annotations

from typing import Any, get_args

import torch

from ... import _core
from ..cache.page_pool import PAGE
from ..config import ActFn
from ..weights.checkpoint import Format
from . import kernels
from .kernel_set import OperatorKernels
from .operator import check_tensor, operator, require


def kernels_on(x: torch.Tensor) -> OperatorKernels:
    """Returns the kernels where x is.

    Raises CudaUnavailable for a GPU that bitlens has none for.
    """
    if x.device.type == "cpu":
        return kernels
    from .cuda.on_device import gpu_kernels

    return gpu_kernels(x.device)


def _check_act(op: str, **tensors: torch.Tensor) -> None:
    for name, x in tensors.items():
        require(
            x.dtype in kernels.DTYPE_CODES, op, f"{name} is {x.dtype}, expected float32 or bfloat16"
        )
        require(x.numel() == 0 or x.shape[-1] > 0, op, f"{name} has an empty last axis")


def _check_like(op: str, **tensors: torch.Tensor) -> None:
    (first, x), *others = tensors.items()
    for name, y in others:
        require(
            (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device),
            op,
            f"{name} is {y.dtype} {list(y.shape)} on {y.device}, {first} is {x.dtype} "
            f"{list(x.shape)} on {x.device}",
        )


def _check_panels(
    op: str, panels: torch.Tensor, format: int, n: int, k: int, device: torch.device
) -> None:
    known = [f for f in Format if f.in_kernels]
    require(format in known, op, f"format {format} is none of {known}")
    require(n > 0 and k >= 0, op, f"no matrix is [{n}, {k}]")
    check_tensor(op, "panels", panels, torch.uint8, [_core.packed_bytes(format, n, k)], device)


def _check_indices(op: str, name: str, x: torch.Tensor, stop: int) -> None:
    if x.numel():
        low, high = (int(v) for v in torch.aminmax(x))
        require(low >= 0 and high < stop, op, f"{name} holds {low}..{high}, valid is 0..{stop - 1}")


def _fake_linear(
    x: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    return x.new_empty(x.shape[0], n, dtype=out_dtype or x.dtype)


@operator(
    "linear(Tensor x, Tensor panels, int format, int n, Tensor? bias=None, "
    "ScalarType? out_dtype=None) -> Tensor",
    _fake_linear,
    on_gpu=True,
)
def linear(
    x: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x [rows, k] times a packed [n, k] (model/ops/packed.py) plus bias fp32 [n] -> [rows, n]."""
    _check_act("linear", x=x)
    require(x.ndim == 2, "linear", f"x is {list(x.shape)}, expected [rows, k]")
    _check_panels("linear", panels, format, n, x.shape[1], x.device)
    if bias is not None:
        check_tensor("linear", "bias", bias, torch.float32, [n], x.device)
    out_dtype = out_dtype or x.dtype
    require(out_dtype in kernels.DTYPE_CODES, "linear", f"out_dtype {out_dtype} is not supported")
    return kernels_on(x).linear(x, panels, format, n, bias, out_dtype)


def _fake_embedding(
    tokens: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    k: int,
    scale: float,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    return tokens.new_empty(tokens.shape[0], k, dtype=out_dtype)


@operator(
    "embedding(Tensor tokens, Tensor panels, int format, int n, int k, float scale, "
    "ScalarType out_dtype) -> Tensor",
    _fake_embedding,
    on_gpu=True,
)
def embedding(
    tokens: torch.Tensor,
    panels: torch.Tensor,
    format: int,
    n: int,
    k: int,
    scale: float,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """Rows `tokens` int64 [T] of a packed matrix [n, k], times scale -> [T, k]."""
    op = "embedding"
    require(tokens.dtype == torch.int64 and tokens.ndim == 1, op, "tokens must be int64 [T]")
    require(out_dtype in kernels.DTYPE_CODES, op, f"out_dtype {out_dtype} is not supported")
    _check_panels(op, panels, format, n, k, tokens.device)
    _check_indices(op, "tokens", tokens, n)
    return kernels_on(tokens).embedding(tokens, panels, format, n, k, scale, out_dtype)


def _check_norm(op: str, x: torch.Tensor, weight: torch.Tensor) -> None:
    _check_act(op, x=x)
    require(x.ndim > 0, op, "x is a scalar")
    check_tensor(op, "weight", weight, torch.float32, [x.shape[-1]], x.device)


@operator(
    "rms_norm(Tensor x, Tensor weight, float eps, ScalarType? out_dtype=None) -> Tensor",
    lambda x, weight, eps, out_dtype=None: torch.empty_like(
        x, dtype=out_dtype, memory_format=torch.contiguous_format
    ),
    on_gpu=True,
)
def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """RMS norm over the last axis with weight fp32 [d] (Zhang and Sennrich 2019), in x's dtype
    unless `out_dtype` is another."""
    _check_norm("rms_norm", x, weight)
    out_dtype = out_dtype or x.dtype
    require(out_dtype in kernels.DTYPE_CODES, "rms_norm", f"out_dtype {out_dtype}: not supported")
    return kernels_on(x).rms_norm(x, weight, eps, out_dtype)


@operator(
    "add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor, Tensor)",
    lambda x, residual, weight, eps: (
        torch.empty_like(residual, memory_format=torch.contiguous_format),
        torch.empty_like(x, memory_format=torch.contiguous_format),
    ),
    on_gpu=True,
)
def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of s = round(x + residual) in residual's dtype, and s in x's."""
    _check_norm("add_rms_norm", x, weight)
    _check_act("add_rms_norm", residual=residual)
    require(
        (x.shape, x.device) == (residual.shape, residual.device),
        "add_rms_norm",
        f"residual is {list(residual.shape)} on {residual.device}, x is {list(x.shape)} on "
        f"{x.device}",
    )
    return kernels_on(x).add_rms_norm(x, residual, weight, eps)


@operator(
    "rope(Tensor x, Tensor positions, Tensor cos, Tensor sin) -> Tensor",
    lambda x, positions, cos, sin: torch.empty_like(x, memory_format=torch.contiguous_format),
    on_gpu=True,
)
def rope(
    x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Rotates x [T, H, h] by positions int64 [T]; cos, sin fp32 [n_positions, h / 2]."""
    _check_act("rope", x=x)
    require(x.ndim == 3 and x.shape[2] % 2 == 0, "rope", f"x is {list(x.shape)}, h must be even")
    check_tensor("rope", "positions", positions, torch.int64, [x.shape[0]], x.device)
    check_tensor("rope", "cos", cos, torch.float32, [-1, x.shape[2] // 2], x.device)
    check_tensor("rope", "sin", sin, torch.float32, list(cos.shape), x.device)
    _check_indices("rope", "positions", positions, cos.shape[0])
    return kernels_on(x).rope(x, positions, cos, sin)


def _check_pages(
    op: str,
    rows: int,
    n_heads: int,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts: torch.Tensor,
    past: torch.Tensor,
) -> None:
    n_pages, n_kv_heads, d_head, _ = k_pages.shape
    device = k_pages.device
    check_tensor(op, "k_pages", k_pages, k_pages.dtype, [-1, -1, -1, PAGE], device)
    check_tensor(op, "v_pages", v_pages, k_pages.dtype, [n_pages, n_kv_heads, PAGE, d_head], device)
    require(
        n_kv_heads > 0 and n_heads % n_kv_heads == 0,
        op,
        f"{n_heads} heads do not share {n_kv_heads} key-value heads evenly",
    )
    check_tensor(op, "past", past, torch.int64, [-1], device)
    check_tensor(op, "starts", starts, torch.int64, [past.shape[0] + 1], device)
    check_tensor(op, "page_table", page_table, torch.int32, [past.shape[0], -1], device)
    _check_indices(op, "page_table", page_table, n_pages)
    lengths = starts.diff()
    require(
        bool((lengths >= 0).all()) and int(starts[0]) == 0 and int(starts[-1]) == rows,
        op,
        f"starts must ascend from 0 to the {rows} rows",
    )
    require(bool((past >= 0).all()), op, "past holds a negative length")
    capacity = page_table.shape[1] * PAGE
    require(
        bool((past + lengths <= capacity).all()), op, f"page_table holds {capacity} keys a sequence"
    )


@operator(
    "kv_write(Tensor k, Tensor v, Tensor(a!) k_pages, Tensor(b!) v_pages, Tensor page_table, "
    "Tensor starts, Tensor past) -> ()",
    lambda *args: None,
    on_gpu=True,
)
def kv_write(
    k: torch.Tensor,
    v: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts: torch.Tensor,
    past: torch.Tensor,
) -> None:
    """Writes k, v [T, G, h] of ragged sequences into pages (model/kv_cache.py), from `past` on."""
    _check_act("kv_write", k=k)
    _check_like("kv_write", k=k, v=v)
    require(k.ndim == 3 and k_pages.ndim == 4, "kv_write", "k is [T, G, h], k_pages [N, G, h, 64]")
    require(
        (k_pages.dtype, k_pages.device) == (k.dtype, k.device)
        and k_pages.shape[1:3] == k.shape[1:],
        "kv_write",
        "pages unlike k",
    )
    _check_pages("kv_write", k.shape[0], k.shape[1], k_pages, v_pages, page_table, starts, past)
    kernels_on(k).kv_write(k, v, k_pages, v_pages, page_table, starts, past)


_CAP = "positive normal number of fp32"


def _is_cap(cap: float) -> bool:
    fp32 = torch.finfo(torch.float32)
    return fp32.tiny <= cap <= fp32.max


def _fake_attention(
    q: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.empty_like(q, memory_format=torch.contiguous_format)
    return z, q.new_empty(q.shape[:2], dtype=torch.float32)


@operator(
    "attention(Tensor q, Tensor k_pages, Tensor v_pages, Tensor page_table, Tensor starts, "
    "Tensor past, float scale, int window=0, float cap=0.0) -> (Tensor, Tensor)",
    _fake_attention,
    on_gpu=True,
)
def attention(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    page_table: torch.Tensor,
    starts: torch.Tensor,
    past: torch.Tensor,
    scale: float,
    window: int = 0,
    cap: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of q [T, H, h] over pages that hold the batch's keys, its own included.

    Returns z [T, H, h] and the scores' log-sum-exp fp32 [T, H]. window 0: no window; cap 0: no soft
    cap of the scaled scores.
    """
    _check_act("attention", q=q)
    require(q.ndim == 3 and k_pages.ndim == 4, "attention", "q is [T, H, h], k_pages [N, G, h, 64]")
    require(
        (k_pages.dtype, k_pages.device) == (q.dtype, q.device) and k_pages.shape[2] == q.shape[2],
        "attention",
        "pages unlike q",
    )
    require(window >= 0, "attention", f"window {window} is negative")
    require(cap == 0.0 or _is_cap(cap), "attention", f"cap {cap} is no {_CAP}")
    _check_pages("attention", q.shape[0], q.shape[1], k_pages, v_pages, page_table, starts, past)
    return kernels_on(q).attention(
        q, k_pages, v_pages, page_table, starts, past, scale, window, cap
    )


@operator(
    "gated_act(Tensor gate, Tensor up, str kind) -> Tensor",
    lambda gate, up, kind: torch.empty_like(gate, memory_format=torch.contiguous_format),
    on_gpu=True,
)
def gated_act(gate: torch.Tensor, up: torch.Tensor, kind: ActFn) -> torch.Tensor:
    """act(gate) * up over [rows, m]; kind is "silu" or "gelu_tanh" (Shazeer 2020)."""
    require(kind in get_args(ActFn), "gated_act", f"kind {kind!r} is none of {get_args(ActFn)}")
    _check_act("gated_act", gate=gate, up=up)
    _check_like("gated_act", gate=gate, up=up)
    require(gate.ndim == 2, "gated_act", f"gate is {list(gate.shape)}, expected [rows, m]")
    return kernels_on(gate).gated_act(kind, gate, up)


def _check_fp32_rows(op: str, x: torch.Tensor) -> None:
    require(x.dtype == torch.float32, op, f"x is {x.dtype}, expected float32")
    require(x.ndim > 0 and x.shape[-1] > 0, op, f"x {list(x.shape)} has no last axis to reduce")


@operator(
    "softmax(Tensor x) -> Tensor",
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
    on_gpu=True,
)
def softmax(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the last axis, fp32; a row of -inf gives zeros."""
    _check_fp32_rows("softmax", x)
    return kernels_on(x).softmax(x)


@operator(
    "log_softmax(Tensor x) -> Tensor",
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
    on_gpu=True,
)
def log_softmax(x: torch.Tensor) -> torch.Tensor:
    """Log-softmax over the last axis, fp32."""
    _check_fp32_rows("log_softmax", x)
    return kernels_on(x).log_softmax(x)


@operator("logsumexp(Tensor x) -> Tensor", lambda x: x.new_empty(x.shape[:-1]), on_gpu=True)
def logsumexp(x: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp over the last axis, fp32."""
    _check_fp32_rows("logsumexp", x)
    return kernels_on(x).logsumexp(x)


@operator(
    "cross_entropy(Tensor logits, Tensor targets, float smoothing=0.0, int ignored=-100, "
    "bool mean=True) -> Tensor",
    lambda logits, targets, smoothing=0.0, ignored=-100, mean=True: logits.new_empty(
        () if mean else targets.shape, dtype=torch.float32
    ),
    on_gpu=True,
)
def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    ignored: int = -100,
    mean: bool = True,
) -> torch.Tensor:
    """Loss of logits [rows, classes] against classes [rows], in fp32: the mean of those rows whose
    target is not `ignored`, or each; `smoothing` of the target is spread over all classes."""
    op = "cross_entropy"
    _check_act(op, logits=logits)
    require(logits.ndim == 2, op, f"logits are {list(logits.shape)}, expected [rows, classes]")
    check_tensor(op, "targets", targets.contiguous(), torch.int64, logits.shape[:1], logits.device)
    require(0 <= smoothing <= 1, op, f"smoothing {smoothing} is not in [0, 1]")
    counted = targets[targets != ignored]
    _check_indices(op, "targets", counted, logits.shape[1])
    require(not mean or counted.numel() > 0, op, "every target is ignored: there is no mean")
    return kernels_on(logits).cross_entropy(logits, targets, smoothing, ignored, mean=mean)


@operator(
    "exp(Tensor x) -> Tensor",
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
)
def exp(x: torch.Tensor) -> torch.Tensor:
    """e^x, fp32, at most 1 ULP off, the same bits on every instruction set."""
    require(x.dtype == torch.float32, "exp", f"x is {x.dtype}, expected float32")
    return kernels.exp(x)


@operator(
    "log(Tensor x) -> Tensor",
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
)
def log(x: torch.Tensor) -> torch.Tensor:
    """Natural logarithm, fp32, at most 1 ULP off, the same bits on every instruction set."""
    require(x.dtype == torch.float32, "log", f"x is {x.dtype}, expected float32")
    return kernels.log(x)


@operator(
    "tanh(Tensor x) -> Tensor",
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
)
def tanh(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent, fp32, at most 1 ULP off, the same bits on every instruction set."""
    require(x.dtype == torch.float32, "tanh", f"x is {x.dtype}, expected float32")
    return kernels.tanh(x)


@operator(
    "soft_cap(Tensor x, float cap) -> Tensor",
    lambda x, cap: torch.empty_like(x, memory_format=torch.contiguous_format),
    on_gpu=True,
)
def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """cap * tanh(x / cap), fp32 (Gemma 2, arXiv 2408.00118)."""
    require(x.dtype == torch.float32, "soft_cap", f"x is {x.dtype}, expected float32")
    require(_is_cap(cap), "soft_cap", f"cap {cap} is no {_CAP}")
    return kernels_on(x).soft_cap(x, cap)
