"""Honest implementations in fp32 of what is not part of a forward pass, or has no kernel of ours.

torch's own functions, and a second way to write them. Each takes inputs as `arguments_of` completes
them, in any dtype, and returns fp32. It stands by itself: the benchmarks read this file, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Implementation = Callable[..., Tensor]


def _torch_group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    w, b = (None if t is None else t.float() for t in (weight, bias))
    return torch.group_norm(x.float(), groups, w, b, eps)  # F's refuses single values


def _group_norm_by_deviations(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    rows = x.float().reshape(x.shape[0], groups, -1)
    centred = rows - rows.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    y = y.reshape(x.shape)
    each = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.float().reshape(each)
    return y if bias is None else y + bias.float().reshape(each)


def _torch_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    groups: int,
) -> Tensor:
    b = None if bias is None else bias.float()
    return F.conv1d(F.pad(x.float(), padding), weight.float(), b, stride, 0, dilation, groups)


def _embedding(ids: Tensor, weight: Tensor, scale: float | None) -> Tensor:
    rows = F.embedding(ids, weight.float())
    return rows if scale is None else rows * scale


def _clamped_swiglu(gate: Tensor, up: Tensor, limit: float, alpha: float, offset: float) -> Tensor:
    """Returns the clamped gate of gpt-oss's modeling code."""
    g, u = gate.float().clamp(max=limit), up.float().clamp(-limit, limit)
    return (u + offset) * (g * torch.sigmoid(g * alpha))


def _quantize(x: Tensor, scale: Tensor, zero_point: int, low: float, high: float) -> Tensor:
    blocks = x.float().reshape(*scale.shape, -1) / scale.float()[..., None] + zero_point
    return blocks.clamp(low, high).reshape(x.shape)


def _dequantize(codes: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
    blocks = codes.float().reshape(*scale.shape, -1) * scale.float()[..., None]
    blocks = blocks if minimum is None else blocks + minimum.float()[..., None]
    return blocks.reshape(codes.shape)


def _block_scale(x: Tensor, block: int, limit: float, power: str | None) -> Tensor:
    peak = x.float().abs().reshape(*x.shape[:-1], -1, block).amax(-1)
    if power == "floor":
        exponent = torch.frexp(peak).exponent - 1 - math.floor(math.log2(limit))
        return torch.where(peak == 0, 0.0, torch.pow(2.0, exponent.double())).float()
    scale = peak / limit
    if power is None:
        return scale
    mantissa, exponent = torch.frexp(scale)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    return torch.where(scale == 0, 0.0, torch.pow(2.0, exponent.double())).float()


def _moe_gate(
    x: Tensor,
    k: int,
    score: str,
    renormalize: bool,
    factor: float,
    bias: Tensor | None,
    chosen: Tensor,
    undecided: Tensor,
) -> Tensor:
    """Returns the gate of Hugging Face's routers, scattered to all experts."""
    scores = x.float().softmax(-1) if score == "softmax" else x.float().sigmoid()
    choice = scores.masked_fill(~chosen, -1.0) if bias is None else scores + bias.float()
    ids = choice.topk(k, -1).indices
    weights = scores.gather(-1, ids)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return torch.zeros_like(scores).scatter(-1, ids, weights * factor)


def _rank_sum(x: Tensor, average: bool, order_of_ranks: Tensor) -> Tensor:
    total = x.float().sum(-1)
    return total / x.shape[-1] if average else total


def _ring(x: Tensor, average: bool, order_of_ranks: Tensor) -> Tensor:
    parts = x.float().gather(-1, order_of_ranks.expand(x.shape))
    total = parts[..., 0]
    for i in range(1, x.shape[-1]):
        total = total + parts[..., i]
    return total / x.shape[-1] if average else total


def _torch_adam(**inputs: Any) -> Tensor:
    """torch.optim's own step; AdamW's where the decay is decoupled."""
    parameter = inputs["parameter"].float().clone().requires_grad_()
    parameter.grad = inputs["gradient"].float().clone()
    kind = torch.optim.AdamW if inputs["decoupled"] else torch.optim.Adam
    optimizer = kind(
        [parameter],
        lr=inputs["rate"],
        betas=(inputs["beta1"], inputs["beta2"]),
        eps=inputs["eps"],
        weight_decay=inputs["decay"],
    )
    moments = {
        "exp_avg": inputs["first"].float().clone(),
        "exp_avg_sq": inputs["second"].float().clone(),
    }
    optimizer.state[parameter] = {"step": torch.tensor(float(inputs["step"] - 1)), **moments}
    optimizer.step()
    if inputs["result"] == "parameter":
        return parameter.detach()
    return moments["exp_avg" if inputs["result"] == "first" else "exp_avg_sq"]


def _adam_by_hand(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    decoupled: bool,
    result: str,
) -> Tensor:
    """Returns the step of Kingma & Ba and of Loshchilov & Hutter."""
    p, g, m, v = (x.float() for x in (parameter, gradient, first, second))
    if decay and not decoupled:
        g = g + decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g.square()
    if result != "parameter":
        return m if result == "first" else v
    kept = p * (1 - rate * decay) if decay and decoupled else p
    return kept - rate / (1 - beta1**step) * m / ((v / (1 - beta2**step)).sqrt() + eps)


def _log_softmax(x: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


OTHERS: dict[str, dict[str, Implementation]] = {
    "log_softmax": {
        "torch log_softmax": lambda x: F.log_softmax(x.float(), -1),
        "torch without masks": lambda x: _log_softmax(x.float()),
    },
    "group_norm": {
        "torch group_norm": _torch_group_norm,
        "by deviations": _group_norm_by_deviations,
    },
    "conv1d": {"torch conv1d": _torch_conv1d},
    "embedding": {"torch embedding": _embedding},
    "clamped_swiglu": {"torch": _clamped_swiglu},
    "add": {"torch": lambda a, b: a.float() + b.float()},
    "mul": {"torch": lambda a, b: a.float() * b.float()},
    "sigmoid": {
        "torch sigmoid": lambda x: torch.sigmoid(x.float()),
        "by hand": lambda x: 1 / (1 + (-x.float()).exp()),
    },
    "quantize": {"torch": _quantize},
    "dequantize": {"torch": _dequantize},
    "block_scale": {"torch": _block_scale},
    "moe_gate": {"torch": _moe_gate},
    "rank_sum": {"torch": _rank_sum, "ring": _ring},
    "adam_step": {"torch.optim": _torch_adam, "by hand": _adam_by_hand},
    "tanh": {"torch tanh": lambda x: torch.tanh(x.float())},
}
