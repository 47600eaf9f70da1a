"""Single kernels of bitlens.

Tensor names: T rows, H query heads, G key/value heads, h d_head.
"""

from __future__ import annotations

import itertools

import torch

from ... import set_num_threads
from ...model.cache.page_pool import PAGE
from ...model.ops import kernels
from ...model.ops.packed import PackedWeight, pack
from ...model.ops.weight_pages import WeightPages
from ...model.weights.checkpoint import Format, StoredMatrix
from .timing import seconds_per_call

_FORMATS = {"fp32": (Format.F32, torch.float32), "bf16": (Format.BF16, torch.bfloat16)}


class BitlensKernels:
    """Weights are packed before the clock starts, as they are in a loaded model."""

    def __init__(self, threads: int, dtype: str) -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)
        self.format, self.dtype = _FORMATS[dtype]
        self._weights: dict[tuple[int, int, int], list[PackedWeight]] = {}

    def linear(
        self, rows: int, n: int, k: int, copies: int = 1, at_least: float = 0.1
    ) -> dict[str, float]:
        """Seconds of x [rows, k] times w [n, k]; `copies` of w take turns, to outgrow the cache."""
        weights = itertools.cycle(self._packed(n, k, copies))
        x = torch.randn(rows, k).to(self.dtype)

        def call() -> None:
            weight = next(weights)
            kernels.linear(x, weight.data, weight.format, n, None, self.dtype)

        return {"seconds": seconds_per_call(call, at_least)}

    def attention(self, tokens: int, heads: int, kv_heads: int, d_head: int) -> dict[str, float]:
        """Seconds of causal attention over one prompt, writing keys and values included."""
        n_pages = -(-tokens // PAGE)
        q_THh = torch.randn(tokens, heads, d_head, dtype=self.dtype)
        k_TGh, v_TGh = torch.randn(2, tokens, kv_heads, d_head, dtype=self.dtype)
        k_pages = torch.zeros(n_pages, kv_heads, d_head, PAGE, dtype=self.dtype)
        v_pages = torch.zeros(n_pages, kv_heads, PAGE, d_head, dtype=self.dtype)
        table = torch.arange(n_pages, dtype=torch.int32)[None]
        starts, past = torch.tensor([0, tokens]), torch.tensor([0])

        def call() -> None:
            kernels.kv_write(k_TGh, v_TGh, k_pages, v_pages, table, starts, past)
            kernels.attention(q_THh, k_pages, v_pages, table, starts, past, d_head**-0.5, 0)

        return {"seconds": seconds_per_call(call, 0.2)}

    def _packed(self, n: int, k: int, copies: int) -> list[PackedWeight]:
        key = (n, k, copies)
        if key not in self._weights:
            stored = StoredMatrix(self.format, n, k, torch.randn(n, k).to(self.dtype))
            pages = WeightPages()
            self._weights[key] = [pack(stored, pages=pages) for _ in range(copies)]
        return self._weights[key]
