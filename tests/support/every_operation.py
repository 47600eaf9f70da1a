"""Honest implementations of every operation in fp32, and inputs that are hard on them.

Those of a forward pass are in correct_code.py, which the benchmarks read, too; here are torch's own
functions for the others, and a second way to write them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from _pytest.mark.structures import ParameterSet
from bitlens.precision.operations import OPERATIONS, validate_inputs
from support import correct_code
from support.correct_code import FUNCTION_ULP, KINDS, Implementation, Inputs, numbers

__all__ = [
    "CORRECT", "FUNCTION_ULP", "KINDS", "Implementation", "Inputs", "draw", "each", "each_with"
]  # fmt: skip

Tensor = torch.Tensor


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
    """As gpt-oss's modeling code writes it."""
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
    """As Hugging Face's routers write it, scattered to all experts."""
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
    total = correct_code.SUMS["chain"](parts)
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
    "adam_step": {"torch.optim": _torch_adam},
    "tanh": {"torch tanh": lambda x: torch.tanh(x.float())},
}


def _log_softmax(x: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


CORRECT = {**correct_code.CORRECT, **OTHERS}


BY_DAY = ("group_norm", "quantize", "adam_step")
"""Of the operations without a kernel, those that every test sees by day."""


def each(ops: Iterable[str]) -> list[ParameterSet]:
    """The operations, most of those without a kernel of ours by night alone."""
    return [pytest.param(op, id=op, marks=_nightly(op, op in BY_DAY)) for op in ops]


def each_with(ops: Iterable[str], others: Iterable[str], by_day: str) -> list[ParameterSet]:
    """The operations with a format or the like; those without a kernel of ours with one by day."""
    return [
        pytest.param(op, other, id=f"{op}-{other}", marks=_nightly(op, other == by_day))
        for op in ops
        for other in others
    ]


def _nightly(op: str, by_day: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if by_day or OPERATIONS[op].native is not None else (pytest.mark.nightly,)


def draw(op: str, kind: str, seed: int, dtype: torch.dtype) -> Inputs:
    """Inputs of `op`, stored in `dtype`."""
    if op not in OTHERS:
        return correct_code.draw(op, kind, seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 300, (), generator=generator))

    def stored(*shape: int) -> Tensor:
        return numbers(kind, shape, generator).to(dtype)

    inputs: dict[str, Any] = {}
    if op == "group_norm":
        affine = {"weight": stored(6), "bias": stored(6)} if seed % 3 else {}
        inputs = {"x": stored(2, 6, n), "groups": (1, 2, 3, 6)[seed % 4], "eps": 1e-5, **affine}
    elif op == "conv1d":
        groups = 1 + seed % 2
        inputs = {"x": stored(2, 4, n), "weight": stored(6, 4 // groups, 3), "groups": groups}
        inputs |= {"bias": stored(6), "padding": (4, 0), "dilation": 2} if seed % 3 else {}
        inputs |= {"padding": 1, "stride": 2} if seed % 3 == 0 else {}
    elif op == "embedding":
        ids = torch.randint(0, 5, (6,), generator=generator)
        inputs = {"ids": ids, "weight": stored(5, n)}
        inputs |= {"scale": 33.94112549695428} if seed % 2 else {}
    elif op == "clamped_swiglu":
        inputs = {"gate": stored(n) * 4, "up": stored(n) * 4}
        inputs |= {"limit": 10.0, "alpha": 1.0, "offset": 0.0} if seed % 3 == 0 else {}
    elif op == "quantize":
        inputs = {"x": stored(6, 2 * n), "scale": stored(6, 2).abs() + 0.25}
        inputs |= {"low": -8, "high": 7} if seed % 2 else {}
    elif op == "dequantize":
        inputs = {"codes": stored(6, 2 * n), "scale": stored(6, 2)}
        inputs |= {"minimum": stored(6, 2)} if seed % 2 else {}
    elif op == "block_scale":
        inputs = {"x": stored(6, 2 * n), "block": n, "limit": (127.0, 6.0)[seed % 2]}
        inputs |= {"power": ("floor", "up")[seed % 2]} if seed % 3 else {}
    elif op == "moe_gate":
        x, k = stored(6, n) * 2, min(4, n)
        ranked = x.double().sort(dim=-1, descending=True).values
        if k < n and bool((ranked[:, k - 1] == ranked[:, k]).any()):
            k = n  # of a tie at the boundary nothing is said
        inputs = {"x": x, "k": k, "renormalize": seed % 3 > 0}
        inputs |= {"score": ("softmax", "sigmoid")[seed % 2], "factor": (1.0, 2.5)[seed // 2 % 2]}
        biased = inputs | {"bias": stored(n)}
        if seed % 4 < 2 and not bool(validate_inputs("moe_gate", biased)["undecided"].any()):
            inputs = biased
    elif op == "rank_sum":
        inputs = {"x": stored(6, n), "average": seed % 2 > 0} | ({"ring": n} if seed % 3 else {})
    elif op == "adam_step":
        names = ("parameter", "gradient", "first", "second")
        inputs = {name: stored(6, n) for name in names} | {"step": 1 + seed % 20}
        inputs["second"] = inputs["second"].abs()
        inputs |= {"decay": (0.0, 0.1)[seed % 2], "decoupled": seed % 3 > 0, "eps": 1e-6}
        inputs["result"] = ("parameter", "parameter", "first", "second")[seed // 3 % 4]
    elif op in ("add", "mul"):
        inputs = {"a": stored(6, n), "b": stored(6, n) if seed % 2 else stored(n)}
    else:
        inputs = {"x": stored(6, n) * 2}
    return inputs
