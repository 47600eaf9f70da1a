"""Honest implementations of every contract: bitlens on each instruction set, torch, numpy, loops.

Those of the tests, from their files, so that both judge the same code.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from ... import _core
from ...precision.contract import PrecisionContract
from ...precision.formats import FORMATS
from ...precision.operations import validate_inputs
from ...precision.reals.definitions import arguments_of
from .libraries import LIBRARIES

Tensor = torch.Tensor
Implementation = Callable[..., Tensor]

_TESTS = Path(__file__).parents[2] / "tests" / "support"


def tests_module(name: str) -> ModuleType:
    """A module of tests/support, which both judge the same code by."""
    spec = importlib.util.spec_from_file_location(f"bitlens_tests_{name}", _TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CODE, _KERNELS = tests_module("correct_code"), tests_module("bitlens_kernels")


def implementations(library: str, op: str) -> dict[str, Implementation]:
    """By name, those that keep this contract; each takes the inputs by name."""
    contract = LIBRARIES[library][op]
    if library.startswith("bitlens") and op in _KERNELS.KERNELS:
        kernel = _KERNELS.KERNELS[op]
        return {f"bitlens {isa}": _on(isa, kernel) for isa in _core.available_isas()}
    eager = {"torch eager": _EAGER[op]} if contract.storage == "bf16" else {}
    if len(contract.casts) > 1:
        return {"torch eager": _EAGER[op]}
    wide = {
        name: _stored(code, contract)
        for name, code in _CODE.CORRECT[op].items()
        if _CODE.FUNCTION_ULP.get(name, 2.0) <= contract.function_ulp
    }
    if op == "gelu" and contract.function_ulp < _CODE.FUNCTION_ULP["torch gelu"]:
        eager = {}
    return wide | eager


def declared(name: str, contract: PrecisionContract) -> PrecisionContract:
    """What the implementation of that name promises: mostly the contract itself."""
    if name == "torch sdpa":  # its vectorised exp gives 0 where the result would be subnormal
        return dataclasses.replace(contract, may_flush=True)
    return contract


def _stored(code: Implementation, contract: PrecisionContract) -> Implementation:
    """Computes in fp32 and rounds once."""

    def implementation(**inputs: Any) -> Tensor:
        prepared = arguments_of(contract.op, inputs)
        return code(**prepared).to(FORMATS[contract.storage].dtype)

    return implementation


def _on(isa: str, kernel: Implementation) -> Implementation:
    @functools.wraps(kernel)
    def implementation(**inputs: Any) -> Tensor:
        before = _core.isa_setting()
        _core.set_isa(isa)
        try:
            return kernel(**inputs)
        finally:
            _core.set_isa(before)

    return implementation


def _eager_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    normalized = (wide * scale).to(x.dtype)
    return normalized if weight is None else weight * normalized


def _eager_layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _eager_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    causal: bool | None = None,
    window: int | None = None,
    past: int | None = None,
    cap: float | None = None,
) -> Tensor:
    inputs = {"scale": scale, "causal": causal, "window": window, "past": past, "cap": cap}
    prepared = validate_inputs("attention", {"q": q, "k": k, "v": v, **inputs})
    group = q.shape[-3] // k.shape[-3]
    keys, values = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
    scores: Tensor = q @ keys.mT * prepared["scale"]
    if (cap := prepared["cap"]) is not None:  # its steps are no cast points: in fp32
        scores = cap * torch.tanh(scores.float() / cap)
    scores = scores.masked_fill(~prepared["visible"], -torch.inf)
    mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ values
    return mixed


def _eager_rope(
    x: Tensor,
    positions: Tensor | None = None,
    theta: float = 10000.0,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    inv_freq: tuple[float, ...] | None = None,
    attention_factor: float = 1.0,
) -> Tensor:
    d = x.shape[-1]
    if cos is None or sin is None:
        assert positions is not None
        if inv_freq is None:
            frequencies = 1.0 / theta ** (torch.arange(0, d, 2).float() / d)
        else:
            frequencies = torch.tensor(inv_freq, dtype=torch.float32)
        angles = positions.float()[..., None] * frequencies
        cos, sin = angles.cos() * attention_factor, angles.sin() * attention_factor
    cos, sin = (torch.cat([t, t], -1).to(x.dtype) for t in (cos, sin))
    return x * cos + torch.cat([-x[..., d // 2 :], x[..., : d // 2]], -1) * sin


def _eager_swiglu(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    return (F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")) * up


def _eager_matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(a, b.mT.contiguous(), bias)


_EAGER: dict[str, Implementation] = {
    "matmul": _eager_matmul,
    "rms_norm": _eager_norm,
    "layer_norm": _eager_layer_norm,
    "softmax": lambda x: x.softmax(-1),
    "logsumexp": lambda x: x.float().logsumexp(-1).to(x.dtype),
    "attention": _eager_attention,
    "rope": _eager_rope,
    "soft_cap": lambda x, cap: torch.tanh(x / cap) * cap,
    "silu": lambda x: F.silu(x),
    "swiglu": _eager_swiglu,
    "gelu": lambda x, approximate: F.gelu(x, approximate=approximate),
}
"""As transformers' Llama calls them, in the stored dtype throughout."""
