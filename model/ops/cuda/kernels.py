"""The CUDA kernels on tensors, unchecked: the functions of model/ops/kernels.py, on a device.

Tensor names: T ragged rows, B batch, K key positions, d d_model, H heads, G key/value heads,
h d_head, m d_mlp, N pages, n outputs of a linear.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ...config import ActFn
from ..kernels import ACT_CODES, DTYPE_CODES
from ..packed import PackedWeight
from .library import Library
from .sequences import Sequences

R = TypeVar("R")

WORKSPACE = 64 << 20
"""Bytes that attention works in, unless one row of each sequence needs more."""

_CAPTURING = threading.Lock()
"""Torch permits one capture at a time in a process."""


class CudaKernels:
    """Kernels of one library. Results are new tensors on its device; what describes a batch (page
    table, starts, past) may be on the CPU, as a batch has it."""

    def __init__(self, library: Library, workspace: int = WORKSPACE) -> None:
        self.library = library
        self.device = library.device
        self.workspace = workspace

    def __deepcopy__(self, memo: object) -> CudaKernels:
        """Returns itself: it holds no state of a model."""
        return self

    def captured(self, body: Callable[[], R]) -> tuple[Callable[[], None], R]:
        """Captures the kernels that a body launches as a CUDA graph, without running them; returns
        what runs them again, and the body's result, into whose tensors they write."""
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, self.library.on_device():
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = body()
        return graph.replay, result

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def linear(
        self,
        x: torch.Tensor,
        panels: torch.Tensor,
        format: int,
        n: int,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype,
    ) -> torch.Tensor:
        x = x.contiguous()
        rows, k = x.shape
        out = self.empty((rows, n), out_dtype)
        self.library.launch(
            "linear", x, DTYPE_CODES[x.dtype], rows, k, k, panels, int(format), n, bias, out,
            DTYPE_CODES[out_dtype], n,
        )  # fmt: skip
        return out

    def linears(
        self, x: torch.Tensor, layers: Sequence[tuple[PackedWeight, torch.Tensor | None]]
    ) -> torch.Tensor:
        """Products of the same x [rows, k], in its dtype, side by side -> [rows, sum of n]."""
        x = x.contiguous()
        (rows, k), dtype = x.shape, DTYPE_CODES[x.dtype]
        out = self.empty((rows, sum(weight.n for weight, _ in layers)), x.dtype)
        column = 0
        for weight, bias in layers:
            self.library.launch(
                "linear", x, dtype, rows, k, k, weight.data, int(weight.format), weight.n, bias,
                out[:, column:], dtype, out.shape[1],
            )  # fmt: skip
            column += weight.n
        return out

    def embedding(
        self,
        tokens_T: torch.Tensor,
        panels: torch.Tensor,
        format: int,
        n: int,
        k: int,
        scale: float,
        out_dtype: torch.dtype,
    ) -> torch.Tensor:
        tokens_T = tokens_T.contiguous()
        out = self.empty((len(tokens_T), k), out_dtype)
        self.library.launch(
            "embedding", tokens_T, len(tokens_T), panels, int(format), k, scale, out,
            DTYPE_CODES[out_dtype],
        )  # fmt: skip
        return out

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y = x.contiguous(), y.contiguous()
        out = self.empty(x.shape, x.dtype)
        self.library.launch("add", x, DTYPE_CODES[x.dtype], y, DTYPE_CODES[y.dtype], x.numel(), out)
        return out

    def cast(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        x = x.contiguous()
        out = self.empty(x.shape, dtype)
        self.library.launch("cast", x, DTYPE_CODES[x.dtype], x.numel(), out, DTYPE_CODES[dtype])
        return out

    def scaled(self, x: torch.Tensor, factor: float, out_dtype: torch.dtype) -> torch.Tensor:
        x = x.contiguous()
        out = self.empty(x.shape, out_dtype)
        self.library.launch(
            "scaled", x, DTYPE_CODES[x.dtype], x.numel(), factor, out, DTYPE_CODES[out_dtype]
        )
        return out

    def rms_norm(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out_dtype: torch.dtype,
        *,
        stepwise: bool = False,
    ) -> torch.Tensor:
        x = x.contiguous()
        d = x.shape[-1]
        out = self.empty(x.shape, out_dtype)
        self.library.launch(
            "rms_norm", x, d, DTYPE_CODES[x.dtype], None, weight, x.numel() // d, 1, d, eps,
            stepwise, out, d, DTYPE_CODES[out_dtype], None, None, None,
        )  # fmt: skip
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        d = x.shape[-1]
        out, total = self.empty(x.shape, residual.dtype), self.empty(x.shape, x.dtype)
        self.library.launch(
            "rms_norm", x, d, DTYPE_CODES[x.dtype], residual, weight, x.numel() // d, 1, d, eps,
            False, out, d, DTYPE_CODES[residual.dtype], total, None, None,
        )  # fmt: skip
        return out, total

    def norm_heads(
        self, x_Tn: torch.Tensor, first: int, heads: int, weight: torch.Tensor, eps: float
    ) -> None:
        """Normalizes heads first .. first + heads - 1 of each row [n], in place."""
        rows, width = x_Tn.shape
        d, dtype = len(weight), DTYPE_CODES[x_Tn.dtype]
        of_heads = x_Tn[:, first * d :]
        self.library.launch(
            "rms_norm", of_heads, width, dtype, None, weight, rows, heads, d, eps, False, of_heads,
            width, dtype, None, None, None,
        )  # fmt: skip

    def rms_scale(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        x = x.contiguous()
        d = x.shape[-1]
        scale = self.empty((*x.shape[:-1], 1))
        self.library.launch(
            "rms_norm", x, d, DTYPE_CODES[x.dtype], None, None, x.numel() // d, 1, d, eps, False,
            None, d, DTYPE_CODES[x.dtype], None, scale, None,
        )  # fmt: skip
        return scale

    def normalize(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        x, scale = x.contiguous(), scale.contiguous()
        d = x.shape[-1]
        out = self.empty(x.shape)
        self.library.launch("normalize", x, DTYPE_CODES[x.dtype], scale, x.numel() // d, d, out)
        return out

    def norm_weight(
        self, normalized: torch.Tensor, weight: torch.Tensor, out_dtype: torch.dtype
    ) -> torch.Tensor:
        normalized = normalized.contiguous()
        d = normalized.shape[-1]
        out = self.empty(normalized.shape, out_dtype)
        self.library.launch(
            "norm_weight", normalized, weight, normalized.numel() // d, d, out,
            DTYPE_CODES[out_dtype],
        )  # fmt: skip
        return out

    def rope(
        self,
        x_THh: torch.Tensor,
        positions_T: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *,
        stepwise: bool = False,
    ) -> torch.Tensor:
        x_THh, positions_T = x_THh.contiguous(), positions_T.contiguous()
        rows, heads, d_head = x_THh.shape
        out = self.empty(x_THh.shape, x_THh.dtype)
        self.library.launch(
            "rope", x_THh, DTYPE_CODES[x_THh.dtype], rows, heads, d_head, heads * d_head,
            positions_T, cos, sin, stepwise, out, heads * d_head,
        )  # fmt: skip
        return out

    def kv_write(
        self,
        k_TGh: torch.Tensor,
        v_TGh: torch.Tensor,
        k_pages: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
    ) -> None:
        k_TGh, v_TGh = k_TGh.contiguous(), v_TGh.contiguous()
        rows, kv_heads, d_head = k_TGh.shape
        stride = kv_heads * d_head
        starts, past, table = self._here(starts_B1, past_B, page_table)
        self.library.launch(
            "kv_write", k_TGh, v_TGh, DTYPE_CODES[k_TGh.dtype], rows, stride, stride, starts, past,
            len(past), kv_heads, d_head, table, table.shape[1], k_pages, v_pages,
        )  # fmt: skip

    def rope_kv_write(
        self,
        qkv_Tn: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        k_pages: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
        *,
        stepwise: bool = False,
    ) -> None:
        """Rotates queries in place, and writes rotated keys, and values, to their pages: rows of
        [H + 2 G, h], queries, keys and values behind one another."""
        rows, width = qkv_Tn.shape
        kv_heads, d_head = k_pages.shape[1:3]
        heads = width // d_head - 2 * kv_heads
        starts, past, table = self._here(starts_B1, past_B, page_table)
        self.library.launch(
            "rope_kv_write", qkv_Tn, DTYPE_CODES[qkv_Tn.dtype], rows, width, heads, cos, sin,
            stepwise, starts, past, len(past), kv_heads, d_head, table, table.shape[1], k_pages,
            v_pages,
        )  # fmt: skip

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
        *,
        stepwise: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        where = Sequences.on(self.device, page_table, starts_B1, past_B)
        return self.attend(q_THh, k_pages, v_pages, where, scale, window, cap, stepwise=stepwise)

    def attend(
        self,
        q_THh: torch.Tensor,
        k_pages: torch.Tensor,
        v_pages: torch.Tensor,
        where: Sequences,
        scale: float,
        window: int,
        cap: float,
        *,
        stepwise: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`attention` of sequences that the device has been told of. Waits for nothing."""
        rows, heads, d_head = q_THh.shape
        if q_THh.stride()[1:] != (d_head, 1):
            q_THh = q_THh.contiguous()
        z_THh = self.empty((rows, heads, d_head), q_THh.dtype)
        lse_TH = self.empty((rows, heads))
        past, table, keys = where.past_B, where.table, where.keys
        workspace = self._attention_workspace(len(past), where.longest, heads, d_head, keys)
        self.library.launch(
            "attention", q_THh, DTYPE_CODES[q_THh.dtype], q_THh.stride(0), heads, k_pages.shape[1],
            d_head, scale, cap, window, stepwise, where.starts_B1, past, len(past), where.longest,
            keys, table, table.shape[1], k_pages, v_pages, z_THh, heads * d_head, lse_TH, workspace,
            workspace.numel(),
        )  # fmt: skip
        return z_THh, lse_TH

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
    ) -> torch.Tensor:
        where = Sequences.on(self.device, page_table, starts_B1, past_B)
        scores = self.scores_at(q_THh, k_pages, where, scale, window, n_keys, cap)
        return scores if len(rows_R) == len(scores) else scores[rows_R.to(self.device)]

    def scores_at(
        self,
        q_THh: torch.Tensor,
        k_pages: torch.Tensor,
        where: Sequences,
        scale: float,
        window: int,
        n_keys: int,
        cap: float,
    ) -> torch.Tensor:
        """`attention_scores` of all rows, of sequences that the device has been told of. Waits for
        nothing."""
        q_THh = q_THh.contiguous()
        rows, heads, d_head = q_THh.shape
        scores = self.empty((rows, heads, n_keys))
        past, table = where.past_B, where.table
        self.library.launch(
            "attention_scores", q_THh, DTYPE_CODES[q_THh.dtype], heads * d_head, heads,
            k_pages.shape[1], d_head, scale, cap, window, where.starts_B1, past, len(past),
            where.longest, n_keys, table, table.shape[1], k_pages, scores,
        )  # fmt: skip
        return scores

    def scale_scores(self, x: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
        x = x.contiguous()
        out = self.empty(x.shape, dtype)
        self.library.launch("scale_scores", x, scale, x.numel(), out, DTYPE_CODES[dtype])
        return out

    def attention_values(
        self,
        pattern_THK: torch.Tensor,
        v_pages: torch.Tensor,
        page_table: torch.Tensor,
        starts_B1: torch.Tensor,
        past_B: torch.Tensor,
        window: int,
    ) -> torch.Tensor:
        where = Sequences.on(self.device, page_table, starts_B1, past_B)
        return self.values_at(pattern_THK, v_pages, where, window)

    def values_at(
        self, pattern_THK: torch.Tensor, v_pages: torch.Tensor, where: Sequences, window: int
    ) -> torch.Tensor:
        """`attention_values` of sequences that the device has been told of. Waits for nothing."""
        pattern_THK = pattern_THK.contiguous()
        rows, heads, n_keys = pattern_THK.shape
        _, kv_heads, _, d_head = v_pages.shape
        z_THh = self.empty((rows, heads, d_head), v_pages.dtype)
        past, table = where.past_B, where.table
        workspace = self._attention_workspace(len(past), where.longest, heads, d_head, n_keys)
        self.library.launch(
            "attention_values", pattern_THK, DTYPE_CODES[v_pages.dtype], heads, kv_heads, d_head,
            window, where.starts_B1, past, len(past), where.longest, n_keys, table, table.shape[1],
            v_pages, z_THh, heads * d_head, workspace, workspace.numel(),
        )  # fmt: skip
        return z_THh

    def gated_act(
        self, kind: ActFn, gate: torch.Tensor, up: torch.Tensor, *, stepwise: bool = False
    ) -> torch.Tensor:
        gate, up = (x if x.stride(1) == 1 else x.contiguous() for x in (gate, up))
        rows, m = gate.shape
        out = self.empty((rows, m), gate.dtype)
        self.library.launch(
            "gated_act", ACT_CODES[kind], gate, gate.stride(0), up, up.stride(0), rows, m,
            DTYPE_CODES[gate.dtype], stepwise, out, m,
        )  # fmt: skip
        return out

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        return self._rows("softmax", x, x.shape)

    def log_softmax(self, x: torch.Tensor) -> torch.Tensor:
        return self._rows("log_softmax", x, x.shape)

    def logsumexp(self, x: torch.Tensor) -> torch.Tensor:
        return self._rows("logsumexp", x, x.shape[:-1])

    def cross_entropy(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        smoothing: float = 0.0,
        ignored: int = -100,
        *,
        mean: bool = True,
    ) -> torch.Tensor:
        """Returns and raises as on the CPU. Waits for the device, to know what targets are."""
        logits, targets = logits.contiguous(), targets.contiguous()
        rows, n = logits.shape
        losses, average = self.empty((rows,)), self.empty((1,)) if mean else None
        bad = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.library.launch(
            "cross_entropy", logits, DTYPE_CODES[logits.dtype], targets, rows, n, ignored,
            smoothing, losses, bad, average,
        )  # fmt: skip
        if bool(bad):
            raise IndexError(f"target: expected a class below {n}, or {ignored}")
        if average is None:
            return losses
        if bool((targets == ignored).all()):
            raise ValueError("cross_entropy: every target is ignored, so there is no mean")
        return average[0]

    def soft_cap(self, x: torch.Tensor, cap: float) -> torch.Tensor:
        x = x.contiguous()
        out = self.empty(x.shape)
        self.library.launch("soft_cap", x, x.numel(), cap, out)
        return out

    def _rows(self, name: str, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        x = x.contiguous()
        out = self.empty(shape)
        n = x.shape[-1]
        self.library.launch(name, x, x.numel() // n, n, out)
        return out

    def _here(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x.to(self.device) for x in tensors)

    def _attention_workspace(
        self, batch: int, max_rows: int, heads: int, d_head: int, keys: int
    ) -> torch.Tensor:
        floats = self.library.value("attention_workspace", batch, 1, heads, d_head, keys)
        rows = max(1, min(max_rows, self.workspace // 4 // floats))
        return self.empty((rows * floats,))
