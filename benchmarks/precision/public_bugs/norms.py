"""Norms that cancel, drop small variances, or round a statistic."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor, normal, sum_in_bf16

LAYER, LAYER_FP16 = PrecisionContract("layer_norm"), PrecisionContract("layer_norm", storage="fp16")
RMS, RMS_BF16 = PrecisionContract("rms_norm"), PrecisionContract("rms_norm", storage="bf16")
LLAMA = PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    return _finished(centred, centred.square().mean(-1, keepdim=True) + eps, weight, bias).to(x)


def _finished(centred: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return centred * variance.double().rsqrt() * weight.double() + bias.double()


def _one_pass(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = (wide.square().mean(-1, keepdim=True) - mean.square()).clamp(min=0.0)
    return _finished((wide - mean).double(), variance + eps, weight, bias).to(x)


def _unclamped(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = wide.square().mean(-1, keepdim=True) - mean.square()
    return _finished((wide - mean).double(), variance + eps, weight, bias).to(x)


def _shifted_sums(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Sums and sums of squares as running totals, combined at the end."""
    wide, n = x.float(), x.shape[-1]
    total = wide.cumsum(-1)[..., -1:]
    squares = wide.square().cumsum(-1)[..., -1:]
    variance = ((squares - total * total / n) / n).clamp(min=0.0)
    return _finished((wide - total / n).double(), variance + eps, weight, bias).to(x)


def _small_variance_dropped(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    variance = torch.where(variance < 1e-6, 0.0, variance)
    return _finished(centred, variance + eps, weight, bias).to(x)


def _variance_in_fp16(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    variance = (centred.square().mean(-1, keepdim=True) + eps).half()
    return _finished(centred, variance, weight, bias).to(x)


def _eps_in_fp16(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return _layer_norm(x, weight, bias, torch.tensor(eps).half().item())


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * scale * weight.double()).to(x)


def _weight_in_bf16(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """1 + w, which the checkpoint stores without the 1, rounded to bf16 when it is formed."""
    return _rms(x, weight.bfloat16(), eps)


def _product_in_bf16(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    normalized = _rms(x.double(), torch.ones(x.shape[-1], dtype=torch.float64), eps)
    return normalized.to(x) * weight


def _squares_in_bf16(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    total = sum_in_bf16(x.bfloat16().square())[..., None]
    scale = (total.double() / x.shape[-1] + eps).rsqrt()
    return (x.double() * scale * weight.double()).to(x)


def _layer_inputs(x: Tensor, eps: float = 1e-5) -> dict[str, Any]:
    n = x.shape[-1]
    weight, bias = normal(n, seed=1).to(x), normal(n, seed=2).to(x)
    return {"x": x, "weight": weight, "bias": bias, "eps": eps}


def _offset_row() -> dict[str, Any]:
    return _layer_inputs(torch.tensor([[40000.0, 40001.0, 40002.0, 40003.0]]))


def _rms_inputs(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "x": normal(4, 300, dtype=dtype),
        "weight": (1 + 0.1 * normal(300, seed=1)).to(dtype),
        "eps": 1e-6,
    }


GROUP_FP16 = PrecisionContract("group_norm", storage="fp16")


def _group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    one_pass: bool = False,
) -> Tensor:
    rows = x.double().reshape(x.shape[0], groups, -1)
    mean = rows.mean(-1, keepdim=True)
    variance = (rows - mean).square().mean(-1, keepdim=True)
    if one_pass:  # in fp16, as the stored type
        square = rows.half().square().float().mean(-1, keepdim=True)
        variance = (square - mean.float().square()).clamp(min=0.0).double()
    each = (-1, *[1] * (x.ndim - 2))
    y = ((rows - mean) * (variance + eps).rsqrt()).reshape(x.shape)
    y = y if weight is None else y * weight.double().reshape(each)
    return (y if bias is None else y + bias.double().reshape(each)).to(x.dtype)


def _group_norm_in_one_pass(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _group_norm(x, groups, weight, bias, eps, one_pass=True)


BUGS = (
    PublicBug(
        ("tracel-ai/burn#5607",),
        "LayerNorm's variance as E[x^2] - E[x]^2",
        LAYER, _one_pass, _layer_norm, _offset_row,
    ),
    PublicBug(
        ("pytorch/pytorch#51102",),
        "the same without a clamp: a negative variance gives NaN",
        LAYER, _unclamped, _layer_norm, _offset_row,
    ),
    PublicBug(
        ("microsoft/onnxruntime#28463",),
        "the same from running sums",
        LAYER, _shifted_sums, _layer_norm, _offset_row,
    ),
    PublicBug(
        ("pytorch/pytorch#190491",),
        "a variance below 1e-6 taken as 0",
        LAYER, _small_variance_dropped, _layer_norm,
        lambda: _layer_inputs(normal(2, 64) * 2.0**-11, 1e-8),
    ),
    PublicBug(
        ("deepspeedai/DeepSpeed#581",),
        "variance + eps stored in fp16: an eps of 1e-12 is lost",
        LAYER_FP16, _variance_in_fp16, _layer_norm,
        lambda: _layer_inputs(normal(2, 64, dtype=torch.float16), 1e-12),
    ),
    PublicBug(
        ("pytorch/pytorch#41527",),
        "eps in fp16: a row of zeros gives NaN",
        LAYER_FP16, _eps_in_fp16, _layer_norm,
        lambda: _layer_inputs(torch.zeros(2, 64, dtype=torch.float16), 1e-12),
    ),
    PublicBug(
        ("linkedin/Liger-Kernel#1462", "vllm-project/vllm#29810"),
        "Gemma's 1 + w added in bf16",
        RMS, _weight_in_bf16, _rms, lambda: _rms_inputs(torch.float32), "norm",
    ),
    PublicBug(
        ("openxla/xla#41605", "jax-ml/jax#23007"),
        "a declared rounding to bf16 elided before the weight",
        LLAMA, _rms, _product_in_bf16, lambda: _rms_inputs(torch.bfloat16),
    ),
    PublicBug(
        ("sgl-project/sglang#27540",),
        "squares of bf16 activations summed in bf16",
        RMS_BF16, _squares_in_bf16, _rms, lambda: _rms_inputs(torch.bfloat16), "norm",
    ),
    PublicBug(
        ("pytorch/executorch#16727", "neuroneural/brainchop-cli#56"),
        "a group's squares formed in fp16 for E[x^2] - E[x]^2: infinite past 256",
        GROUP_FP16, _group_norm_in_one_pass, _group_norm,
        lambda: {"x": (300 + normal(2, 4, 16)).half(), "groups": 2},
    ),
)  # fmt: skip
