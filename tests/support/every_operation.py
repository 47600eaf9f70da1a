"""Honest implementations of every operation in fp32, and inputs that are hard on them.

Those of a forward pass are in correct_code.py, which the benchmarks read, too; here are torch's own
functions for the others, and a second way to write them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from support import correct_code
from support.correct_code import FUNCTION_ULP, KINDS, Implementation, Inputs, numbers

__all__ = ["CORRECT", "FUNCTION_ULP", "KINDS", "Implementation", "Inputs", "draw"]

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
    "tanh": {"torch tanh": lambda x: torch.tanh(x.float())},
}


def _log_softmax(x: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


CORRECT = {**correct_code.CORRECT, **OTHERS}


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
    elif op in ("add", "mul"):
        inputs = {"a": stored(6, n), "b": stored(6, n) if seed % 2 else stored(n)}
    else:
        inputs = {"x": stored(6, n) * 2}
    return inputs
