"""Arguments of every operator of torch.ops.bitlens."""

from __future__ import annotations

from typing import Any

import torch
from bitlens.model.ops.packed import pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

Sample = tuple[Any, ...]


def packed(n: int, k: int, format: Format = Format.F32) -> torch.Tensor:
    dtype = {Format.F32: torch.float32, Format.BF16: torch.bfloat16}[format]
    return pack(StoredMatrix(format, n, k, torch.randn(n, k).to(dtype))).data


def cache(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Pages of two sequences, 70 and 5 tokens long, 2 key-value heads of 16."""
    k_pages = torch.randn(3, 2, 16, 64).to(dtype)
    v_pages = torch.randn(3, 2, 64, 16).to(dtype)
    page_table = torch.tensor([[2, 0], [1, 0]], dtype=torch.int32)
    starts, past = torch.tensor([0, 6, 8]), torch.tensor([64, 3])
    return k_pages, v_pages, page_table, starts, past


def samples(dtype: torch.dtype) -> dict[str, Sample]:
    torch.manual_seed(0)
    x, y = torch.randn(8, 48).to(dtype), torch.randn(8, 48).to(dtype)
    weight = torch.rand(48)
    heads = torch.randn(8, 2, 16).to(dtype)
    positions = torch.arange(8)
    table = torch.rand(9, 8)
    cuts = torch.tensor([0, 3, 3, 8])
    return {
        "linear": (x, packed(40, 48), Format.F32, 40, torch.randn(40), torch.float32),
        "embedding": (positions, packed(40, 48, Format.BF16), Format.BF16, 40, 48, 2.0, dtype),
        "rms_norm": (x.float(), weight, 1e-5, dtype),
        "add_rms_norm": (x.float(), y, weight, 1e-5),
        "rope": (heads, positions, table, table),
        "kv_write": (heads, heads, *cache(dtype)),
        "attention": (torch.randn(8, 4, 16).to(dtype), *cache(dtype), 0.25, 3, 0.5),
        "gated_act": (x, y, "gelu_tanh"),
        "softmax": (x.float(),),
        "log_softmax": (x.float(),),
        "logsumexp": (x.float(),),
        "cross_entropy": (x, torch.tensor([0, 1, -100, 3, 4, 5, 6, 47]), 0.1, -100, True),
        "exp": (x.float(),),
        "log": (x.float().abs(),),
        "tanh": (x.float(),),
        "soft_cap": (x.float(), 30.0),
        "token_logprob": (x.float().clone().requires_grad_(), positions * 5, 0.7),
        "token_logprob_backward": (
            torch.randn(8),
            x.float(),
            positions * 5,
            0.7,
            x.float().amax(1),
            torch.ones(8) * 20,
        ),
        "add_linear_weight_grad": (torch.zeros(48, 48), x, y, cuts),
        "add_bias_grad": (torch.zeros(48), x, cuts),
        "add_norm_weight_grad": (torch.zeros(16), heads, heads.float(), cuts),
        "add_embed_grad": (torch.zeros(9, 48), x.float(), positions, 0.5, cuts),
    }
