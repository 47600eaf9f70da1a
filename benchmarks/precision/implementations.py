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
from ...precision.formats import round_to
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


CODE, _KERNELS = tests_module("correct_code"), tests_module("bitlens_kernels")
WIDE: dict[str, dict[str, Implementation]] = {
    **CODE.CORRECT,
    **tests_module("correct_outside_a_pass").OTHERS,
}
"""Code that computes in fp32, by operation and name; it takes inputs as `arguments_of` gives them.
"""


def implementations(library: str, op: str) -> dict[str, Implementation]:
    """By name, those that keep this contract; each takes the inputs by name."""
    contract = LIBRARIES[library][op]
    if library.startswith("bitlens") and op in _KERNELS.KERNELS:
        kernel = _KERNELS.KERNELS[op]
        return {f"bitlens {isa}": _on(isa, kernel) for isa in _core.available_isas()}
    eager = {"torch eager": EAGER[op]} if contract.storage == "bf16" and op in EAGER else {}
    if len(contract.casts) > 1:
        return {"torch eager": EAGER[op]}
    wide = {
        name: stored(code, contract)
        for name, code in WIDE[op].items()
        if CODE.FUNCTION_ULP.get(name, 2.0) <= contract.function_ulp
    }
    if op == "gelu" and contract.function_ulp < CODE.FUNCTION_ULP["torch gelu"]:
        eager = {}
    return wide | eager


def declared(name: str, contract: PrecisionContract) -> PrecisionContract:
    """What the implementation of that name promises: mostly the contract itself."""
    if name == "torch sdpa":  # its vectorised exp gives 0 where the result would be subnormal
        return dataclasses.replace(contract, may_flush=True)
    return contract


def stored(code: Implementation, contract: PrecisionContract) -> Implementation:
    """Computes in fp32 and rounds once, codes by the contract's convention."""
    fmt = contract.output_format

    def implementation(**inputs: Any) -> Tensor:
        y = code(**arguments_of(contract.op, inputs))
        if fmt.name in ("fp32", "bf16", "fp16"):
            return y.to(fmt.dtype)
        codes = round_to(y.double(), fmt, overflow=contract.overflow_in(fmt))
        return codes.to(fmt.dtype or torch.float32)

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
    return eager_mixing(**arguments_of("attention", {"q": q, "k": k, "v": v, **inputs}))


def eager_mixing(
    q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor, cap: float | None, **_: Any
) -> Tensor:
    """Returns the mixed values of attention whose inputs are completed."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
    scores: Tensor = q @ keys.mT * scale
    if cap is not None:  # its steps are no cast points: in fp32
        scores = cap * torch.tanh(scores.float() / cap)
    scores = scores.masked_fill(~visible, -torch.inf)
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


def _eager_group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return torch.group_norm(x, groups, weight, bias, eps)


def _eager_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    return F.conv1d(F.pad(x, padding), weight, bias, stride, 0, dilation, groups)


def _eager_embedding(ids: Tensor, weight: Tensor, scale: float | None = None) -> Tensor:
    rows = F.embedding(ids, weight)
    return rows if scale is None else rows * torch.tensor(scale, dtype=weight.dtype)


def _eager_clamped_swiglu(
    gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702, offset: float = 1.0
) -> Tensor:
    g, u = gate.clamp(max=limit), up.clamp(-limit, limit)
    shifted = (u.float() + offset).to(u.dtype)  # on CPUs torch adds the offset rounded to bf16
    return shifted * (g * torch.sigmoid(g * alpha))


EAGER: dict[str, Implementation] = {
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
    "clamped_swiglu": _eager_clamped_swiglu,
    "log_softmax": lambda x: x.log_softmax(-1),
    "group_norm": _eager_group_norm,
    "conv1d": _eager_conv1d,
    "embedding": _eager_embedding,
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sigmoid": lambda x: torch.sigmoid(x),
    "tanh": lambda x: torch.tanh(x),
}
"""As transformers' Llama calls them, in the stored dtype throughout."""
