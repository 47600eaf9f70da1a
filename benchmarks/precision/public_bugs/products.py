"""Matrix products whose partial sums or results are rounded where nothing says so."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import Implementation, PublicBug, Tensor, normal, sum_in_bf16

MATMUL = PrecisionContract("matmul", storage="bf16")


def _matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    return _biased(a.double() @ b.double(), bias).to(a.dtype)


def _biased(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.double()


def _split_k(parts: int, *, sum_in: torch.dtype) -> Implementation:
    def split(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        cuts = zip(a.double().chunk(parts, -1), b.double().chunk(parts, -2), strict=True)
        partials = [(x @ y).to(torch.bfloat16) for x, y in cuts]
        total = partials[0].to(sum_in)
        for partial in partials[1:]:
            total = total + partial.to(sum_in)
        return _biased(total.double(), bias).to(a.dtype)

    return split


def _accumulated_in_bf16(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    products = a[:, None, :] * b.mT
    return _biased(sum_in_bf16(products).double(), bias).to(a.dtype)


def _truncated(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    wide = _biased(a.double() @ b.double(), bias).float()
    return (wide.view(torch.int32) & -65536).view(torch.float32).to(a.dtype)


def _inputs() -> dict[str, Any]:
    return {
        "a": normal(4, 512, dtype=torch.bfloat16),
        "b": normal(512, 8, seed=1, dtype=torch.bfloat16),
    }


BUGS = (
    PublicBug(
        ("modular/modular#7165",),
        "split-K partial sums stored and added in bf16",
        MATMUL, _split_k(4, sum_in=torch.bfloat16), _matmul, _inputs, "matmul",
    ),
    PublicBug(
        ("NVIDIA/TransformerEngine#3440",),
        "split-K partial sums stored in bf16, added in fp32",
        MATMUL, _split_k(3, sum_in=torch.float32), _matmul, _inputs, "matmul",
    ),
    PublicBug(
        ("ROCm/rocm-libraries#8029", "flagos-ai/FlagGems#5876"),
        "64 partial sums added to a bf16 buffer one by one",
        MATMUL, _split_k(64, sum_in=torch.bfloat16), _matmul, _inputs, "matmul",
    ),
    PublicBug(
        ("ROCm/aiter#5151",),
        "the result cut off to bf16, not rounded",
        MATMUL, _truncated, _matmul, _inputs, "matmul",
    ),
    PublicBug(
        ("ROCm/aiter#3806",),
        "sums kept in bf16",
        MATMUL, _accumulated_in_bf16, _matmul, _inputs, "matmul",
    ),
)  # fmt: skip
