"""fp8 outputs that overflow by another convention than hardware's saturation."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from ....precision.formats import Overflow, round_to
from .bug import Implementation, PublicBug, Tensor

E4M3, E5M2 = "fp8_e4m3", "fp8_e5m2"


def _matmul_to(storage: str, overflow: Overflow) -> Implementation:
    def matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        y = a.double() @ b.double()
        return round_to(y if bias is None else y + bias.double(), storage, overflow=overflow)

    return matmul


def _norm_to(storage: str, largest: float) -> Implementation:
    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.double()
        y = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
        return round_to(y.clamp(-largest, largest), storage, overflow="saturate")

    return norm


def _swiglu_to(overflow: Overflow) -> Implementation:
    def swiglu(gate: Tensor, up: Tensor, activation: str) -> Tensor:
        wide = gate.double()
        act = torch.nn.functional.silu if activation == "silu" else _gelu_tanh
        return round_to(act(wide) * up.double(), E4M3, overflow=overflow)

    return swiglu


def _gelu_tanh(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _large(storage: torch.dtype) -> dict[str, Any]:
    a = torch.tensor([[torch.finfo(storage).max, 1.0]]).to(storage)
    return {"a": a, "b": torch.tensor([[2.0], [1.0]]).to(storage)}


def _large_norm() -> dict[str, Any]:
    """flashinfer#4053's own: ones, weights of 1024."""
    x = torch.ones(1, 128).to(torch.float8_e5m2)
    return {"x": x, "weight": torch.full((128,), 1024.0).to(torch.float8_e5m2), "eps": 1e-6}


def _large_gate() -> dict[str, Any]:
    gate, up = torch.tensor([[8.0]]), torch.tensor([[448.0]])
    return {"gate": gate.to(torch.float8_e4m3fn), "up": up.to(torch.float8_e4m3fn)} | {
        "activation": "silu"
    }


def _product(storage: str) -> PrecisionContract:
    return PrecisionContract("matmul", storage=storage)


BUGS = (
    PublicBug(
        ("huggingface/transformers#42746", "pytorch/pytorch#160957", "jax-ml/ml_dtypes#400"),
        "a cast to e4m3 without a clamp: NaN past 464",
        _product(E4M3), _matmul_to(E4M3, "nan"), _matmul_to(E4M3, "saturate"),
        lambda: _large(torch.float8_e4m3fn),
    ),
    PublicBug(
        ("ROCm/rocm-systems#9556",),
        "results past e5m2's largest number infinite, not saturated",
        _product(E5M2), _matmul_to(E5M2, "inf"), _matmul_to(E5M2, "saturate"),
        lambda: _large(torch.float8_e5m2),
    ),
    PublicBug(
        ("flashinfer-ai/flashinfer#4053",),
        "e5m2 results clamped to e4m3's 448",
        PrecisionContract("rms_norm", storage=E5M2),
        _norm_to(E5M2, 448.0), _norm_to(E5M2, 57344.0), _large_norm,
    ),
    PublicBug(
        ("flashinfer-ai/flashinfer#2612", "NVIDIA/Model-Optimizer#1633"),
        "a gated product quantised to e4m3 without a clamp",
        PrecisionContract("swiglu", storage=E4M3),
        _swiglu_to("nan"), _swiglu_to("saturate"), _large_gate,
    ),
)  # fmt: skip
