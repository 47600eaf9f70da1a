"""Activations and log-sum-exps of the wrong formula, or of a careless function."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

GELU, SILU = PrecisionContract("gelu"), PrecisionContract("silu")
LOGSUMEXP = PrecisionContract("logsumexp")


def _gelu(x: Tensor, approximate: str) -> Tensor:
    return F.gelu(x.double(), approximate=approximate).float()


def _always_erf(x: Tensor, approximate: str) -> Tensor:
    return _gelu(x, "none")


def _silu(x: Tensor) -> Tensor:
    return F.silu(x.double()).float()


def _silu_with_fast_exp(x: Tensor) -> Tensor:
    """exp good to some 20 ULP: the integer part exact, a short polynomial for the rest."""
    scaled = -x.double() / math.log(2)
    whole = scaled.round()
    rest = (scaled - whole) * math.log(2)
    exponential = sum(rest**i / math.factorial(i) for i in range(6)) * 2.0 ** whole.clamp(-200, 200)
    return (x.double() / (1 + exponential)).float()


def _logsumexp(x: Tensor) -> Tensor:
    return x.double().logsumexp(-1).float()


def _by_the_maximum(x: Tensor) -> Tensor:
    """-inf less -inf is NaN."""
    wide = x.double()
    peak = wide.amax(-1, keepdim=True)
    return ((wide - peak).exp().sum(-1).log() + peak[..., 0]).float()


def _one_by_one(x: Tensor) -> Tensor:
    """A running pair: the larger, plus log1p of the exponential of the difference."""
    wide = x.double()
    total = wide[..., 0]
    for i in range(1, x.shape[-1]):
        high, low = torch.maximum(total, wide[..., i]), torch.minimum(total, wide[..., i])
        total = high + (low - high).exp().log1p()
    return total.float()


def _nothing() -> dict[str, Any]:
    return {"x": torch.tensor([[-math.inf] * 3, [0.0, -math.inf, 1.0]])}


BUGS = (
    PublicBug(
        ("kyutai-labs/pocket-tts#278",),
        "GELU by erf where its tanh form is asked for",
        GELU, _always_erf, _gelu, lambda: {"x": normal(2, 50), "approximate": "tanh"},
    ),
    PublicBug(
        ("sgl-project/sglang#29382",),
        "exp some 20 ULP off inside SiLU",
        SILU, _silu_with_fast_exp, _silu, lambda: {"x": normal(2, 500)},
    ),
    PublicBug(
        ("tensorflow/tensorflow#11692",),
        "logsumexp of a row of -inf is NaN",
        LOGSUMEXP, _by_the_maximum, _logsumexp, _nothing,
    ),
    PublicBug(
        ("JuliaStats/StatsFuns.jl#22",),
        "the same, pair by pair",
        LOGSUMEXP, _one_by_one, _logsumexp, _nothing,
    ),
)  # fmt: skip
