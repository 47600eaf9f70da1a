"""Activations and log-sum-exps of the wrong formula, or of a careless function."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal

SOFTMAX, SOFT_CAP = PrecisionContract("softmax"), PrecisionContract("soft_cap")
GELU, SILU = PrecisionContract("gelu"), PrecisionContract("silu")
LOGSUMEXP, LOG_SOFTMAX = PrecisionContract("logsumexp"), PrecisionContract("log_softmax")
SIGMOID, TANH = PrecisionContract("sigmoid"), PrecisionContract("tanh")


def _softmax(x: Tensor) -> Tensor:
    return x.double().softmax(-1).float()


def _softmax_unshifted(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum(-1, keepdim=True)


def _soft_cap(x: Tensor, cap: float) -> Tensor:
    return (cap * torch.tanh(x.double() / cap)).float()


def _times_tanh(x: Tensor, cap: float) -> Tensor:
    """The logit itself where the cap should stand: nothing is capped."""
    return (x.double() * torch.tanh(x.double() / cap)).float()


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


def _log_softmax(x: Tensor) -> Tensor:
    return F.log_softmax(x.double(), -1).float()


def _log_of_softmax(x: Tensor) -> Tensor:
    """Without a shift: an exponential that overflows, and the logarithm of a lost probability."""
    exponential = x.exp()
    return (exponential / exponential.sum(-1, keepdim=True)).log()


def _log_sum_of_all(x: Tensor) -> Tensor:
    """The maximum and the logarithm added up in fp32 first."""
    peak = x.amax(-1, keepdim=True)
    return x - (peak + (x - peak).exp().sum(-1, keepdim=True).log())


def _sigmoid(x: Tensor) -> Tensor:
    return x.double().sigmoid().float()


def _sigmoid_by_exponential(x: Tensor) -> Tensor:
    return x.exp() / (1 + x.exp())


def _sigmoid_in_bf16(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _tanh(x: Tensor) -> Tensor:
    return x.double().tanh().float()


def _tanh_by_exponentials(x: Tensor) -> Tensor:
    double = (2 * x).exp()
    return (double - 1) / (double + 1)


def _nothing() -> dict[str, Any]:
    return {"x": torch.tensor([[-math.inf] * 3, [0.0, -math.inf, 1.0]])}


BUGS = (
    PublicBug(
        ("deeplearning4j/deeplearning4j#6039", "uTensor/uTensor#175"),
        "softmax without the maximum subtracted: NaN for large logits",
        SOFTMAX, _softmax_unshifted, _softmax, lambda: {"x": torch.tensor([[378.0, -249.9]])},
    ),
    PublicBug(
        ("unslothai/unsloth-zoo#593",),
        "a soft cap of x tanh(x / cap): large logits are not capped",
        SOFT_CAP, _times_tanh, _soft_cap, lambda: {"x": 60 * normal(2, 50), "cap": 30.0},
    ),
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
    PublicBug(
        ("tracel-ai/burn#315", "pytorch/pytorch#725"),
        "log_softmax as the logarithm of a softmax: -inf and NaN",
        LOG_SOFTMAX, _log_of_softmax, _log_softmax,
        lambda: {"x": torch.tensor([[-781.0, -1043.0, 890.0]])},
    ),
    PublicBug(
        ("pytorch/pytorch#11752", "BasisResearch/dynestyx#183"),
        "log_softmax less maximum plus logarithm: wrong for large logits close together",
        LOG_SOFTMAX, _log_sum_of_all, _log_softmax,
        lambda: {"x": torch.full((1, 11), -1e6)},
    ),
    PublicBug(
        ("clab/dynet#1525",),
        "sigmoid as exp(x) / (1 + exp(x)): NaN for large x",
        SIGMOID, _sigmoid_by_exponential, _sigmoid, lambda: {"x": torch.tensor([2063.8, -0.5])},
    ),
    PublicBug(
        ("tensorflow/tensorflow#123104",),
        "bf16 sigmoid in three bf16 steps: not monotonic",
        PrecisionContract("sigmoid", storage="bf16"), _sigmoid_in_bf16,
        lambda x: _sigmoid(x).bfloat16(), lambda: {"x": torch.tensor([5.5, 5.75, 6.0]).bfloat16()},
    ),
    PublicBug(
        ("BVLC/caffe#1455", "ROCm/triton#900", "deeplearning4j/deeplearning4j#7382"),
        "tanh as (exp(2x) - 1) / (exp(2x) + 1): NaN past 44",
        TANH, _tanh_by_exponentials, _tanh, lambda: {"x": torch.tensor([50.0, -50.0])},
    ),
)  # fmt: skip
