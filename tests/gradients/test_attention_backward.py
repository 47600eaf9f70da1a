"""Attention's derivative against docs/numerics.md in NumPy, bitwise, past a block of 256 queries.

Tensor names: T rows, K key positions, H heads, G key/value heads, h d_head.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitlens.model.batch import RaggedBatch
from bitlens.model.gradients import attention
from bitlens.model.gradients import kernels as derivatives
from bitlens.model.ops import kernels
from bitlens.model.ops.kernel_set import KernelPair
from support import fp32_oracle as oracle

BLOCK = 256
SCALE = 0.3
F32 = oracle.F32


def visible(n: int, window: int | None) -> np.ndarray:  # type: ignore[type-arg]
    t, key = np.arange(n)[:, None], np.arange(n)
    return (key <= t) & (key > t - (window or n))


def sums_over_keys(weight_TK: F32, x_Kh: F32, seen_TK: np.ndarray) -> F32:  # type: ignore[type-arg]
    """Leaves of 256 positions, chains over visible keys alone, leaves with such keys added."""
    total = np.zeros((len(weight_TK), x_Kh.shape[1]), np.float32)
    begun = np.zeros((len(weight_TK), 1), bool)
    for start in range(0, len(x_Kh), BLOCK):
        leaf = np.zeros_like(total)
        for j in range(start, min(start + BLOCK, len(x_Kh))):
            next_leaf = oracle.fma(weight_TK[:, j, None], x_Kh[j], leaf)
            leaf = np.where(seen_TK[:, j, None], next_leaf, leaf)
        here = seen_TK[:, start : start + BLOCK].any(1, keepdims=True)
        total = np.where(here & begun, total + leaf, np.where(here, leaf, total))
        begun |= here
    return total


def sums_over_queries(weight_THK: F32, x_THh: F32) -> F32:
    """For one key/value head: blocks of queries; in each, pairs (head, query) as `linear`."""
    n, total = len(x_THh), None
    for start in range(0, n, BLOCK):
        weight = weight_THK[start : start + BLOCK].transpose(2, 1, 0).reshape(n, -1)
        x = x_THh[start : start + BLOCK].transpose(2, 1, 0).reshape(x_THh.shape[2], -1)
        part = oracle.dot(weight[:, None], x[None])
        total = part if total is None else np.where(np.arange(n)[:, None] < start, total, 0) + part
    assert total is not None
    return total


def expected(
    q_THh: F32, k_Kh: F32, v_Kh: F32, dz_THh: F32, window: int | None
) -> tuple[F32, F32, F32]:
    """dq, dk and dv of one key/value head before they are rounded."""
    seen = visible(len(q_THh), window)
    dq, pattern, dproducts = [], [], []
    for q_Th, dz_Th in zip(q_THh.transpose(1, 0, 2), dz_THh.transpose(1, 0, 2), strict=True):
        scores = oracle.dot(q_Th[:, None], k_Kh[None]) * np.float32(SCALE)
        p, _, _ = oracle.softmax(np.where(seen, scores, -np.inf).astype(np.float32))
        dp = np.where(seen, oracle.dot(dz_Th[:, None], v_Kh[None]), np.float32(0))
        ds = p * (dp - oracle.row_dot(p, dp)[:, None])
        dproduct = np.where(seen, ds, np.float32(0)) * np.float32(SCALE)
        dq.append(sums_over_keys(dproduct, k_Kh, seen))
        pattern.append(p)
        dproducts.append(dproduct)
    dk = sums_over_queries(np.stack(dproducts, 1), q_THh)
    dv = sums_over_queries(np.stack(pattern, 1), dz_THh)
    return np.stack(dq, 1), dk, dv


@pytest.mark.parametrize("window", [None, 5, 261])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_backward_is_the_spec(dtype: torch.dtype, window: int | None) -> None:
    torch.manual_seed(0)
    n_rows, heads, kv_heads, d_head = 290, 4, 2, 3
    q, dz = (torch.randn(n_rows, heads, d_head).to(dtype) for _ in range(2))
    k, v = (torch.randn(n_rows, kv_heads, d_head).to(dtype) for _ in range(2))
    found = backward(q, k, v, dz, window)
    for g in range(kv_heads):
        own = slice(2 * g, 2 * g + 2)
        wide = [x.float().numpy() for x in (q[:, own], k[:, g], v[:, g], dz[:, own])]
        dq, dk, dv = (torch.from_numpy(x).to(dtype) for x in expected(*wide, window))
        for got, want in zip(found, (dq, dk[:, None], dv[:, None]), strict=True):
            mine = got[:, own] if got.shape[1] == heads else got[:, g : g + 1]
            assert torch.equal(mine, want)


def backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dz: torch.Tensor, window: int | None
) -> tuple[torch.Tensor, ...]:
    batch = RaggedBatch.from_tokens(torch.zeros(1, len(q), dtype=torch.int64))
    both = KernelPair(kernels, derivatives)
    settings = attention.Settings(batch, SCALE, None, window, both)
    pages = attention.Pages.of(k, settings), attention.Pages.of(v, settings)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    z, _ = kernels.attention(
        q, pages[0].as_keys, pages[1].as_values, pages[0].table, batch.starts_B1, batch.past_B,
        SCALE, window or 0,
    )  # fmt: skip
    result = attention.Attention.apply(*leaves, z, settings)
    assert isinstance(result, torch.Tensor)
    return torch.autograd.grad(result, leaves, dz)


def test_a_key_that_is_masked_everywhere_has_no_gradient() -> None:
    """NaN in later keys and queries reaches no earlier one."""
    torch.manual_seed(0)
    q, k, v, dz = (torch.randn(9, 1, 4) for _ in range(4))
    clean = backward(q, k, v, dz, None)
    assert all(torch.isfinite(x).all() for x in clean)
    for later in (q, k, v):
        later[6:] = torch.nan
    dq, _, _ = backward(q, k, v, dz, None)
    assert torch.equal(dq[:6], clean[0][:6])
    assert dq[6:].isnan().all()
