"""Sums, products and lookups whose operands are rounded too early, or whose results are cut off."""

from __future__ import annotations

import math
from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

GEMMA = PrecisionContract("embedding", storage="bf16", casts=("scale", "output"))


def _add(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() + b.double()).bfloat16()


def _add_truncated(a: Tensor, b: Tensor) -> Tensor:
    return ((a.float() + b.float()).view(torch.int32) & -65536).view(torch.float32).bfloat16()


def _mul(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).half()


def _mul_in_fp16(a: Tensor, b: Tensor) -> Tensor:
    """The other operand, a number in fp32, becomes fp16 before the product is formed."""
    return a.half() * b.half()


def _embedding(ids: Tensor, weight: Tensor, scale: float | None = None) -> Tensor:
    factor = torch.tensor(1.0 if scale is None else scale, dtype=torch.bfloat16)
    return weight[ids] * factor


def _embedding_by_fp32(ids: Tensor, weight: Tensor, scale: float | None = None) -> Tensor:
    return (weight[ids].float() * (1.0 if scale is None else scale)).bfloat16()


def _residual() -> dict[str, Any]:
    return {"a": normal(4, 64, dtype=torch.bfloat16), "b": normal(4, 64, seed=1).bfloat16()}


BUGS = (
    PublicBug(
        ("tenstorrent/tt-metal#50425", "ROCm/aiter#5151"),
        "a bf16 sum cut off, not rounded",
        PrecisionContract("add", storage="bf16"), _add_truncated, _add, _residual,
    ),
    PublicBug(
        ("pytorch/pytorch#98691", "pytorch/pytorch#63482"),
        "an fp32 factor of an fp16 tensor rounded to fp16: infinite",
        PrecisionContract("mul", storage="fp16"), _mul_in_fp16, _mul,
        lambda: {"a": torch.tensor([0.01]).half(), "b": torch.tensor([65536.0])},
    ),
    PublicBug(
        ("google/gemma_pytorch#67", "huggingface/transformers#29402"),
        "Gemma's embedding scale kept in fp32, which training rounded to bf16",
        GEMMA, _embedding_by_fp32, _embedding,
        lambda: {
            "ids": torch.arange(4),
            "weight": normal(4, 64, dtype=torch.bfloat16),
            "scale": math.sqrt(3072),
        },
    ),
)  # fmt: skip
