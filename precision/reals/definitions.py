"""The eleven operations over the real numbers, each one line of mathematics where it can be.

Stated apart from the programs that contracts judge by, so that the two check each other. Inputs
come by the names contracts use. H heads, G key/value heads, T queries, K keys, d and h d_head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..operations import validate_inputs
from .algebra import Algebra, Array

Tensor = torch.Tensor

GELU_CUBIC = 0.044715


def matmul(over: Algebra, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Array:
    """a [.., m, k] @ b [.., k, n] + bias [n]."""
    y = over.matmul(over.lift(a), over.lift(b))
    return y if bias is None else y + over.lift(bias)


def rms_norm(over: Algebra, x: Tensor, weight: Tensor, eps: float) -> Array:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis."""
    r = over.lift(x)
    square = over.sum(r * r) / float(x.shape[-1])
    return r / over.sqrt(square + over.lift(eps)) * over.lift(weight)


def layer_norm(over: Algebra, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis."""
    n = float(x.shape[-1])
    r = over.lift(x)
    centred = r - over.sum(r) / n
    variance = over.sum(centred * centred) / n
    y = centred / over.sqrt(variance + over.lift(eps))
    return y * over.lift(weight) + over.lift(bias)


def softmax(over: Algebra, x: Tensor) -> Array:
    return _softmax(over, over.lift(x))


def _softmax(over: Algebra, x: Array) -> Array:
    e = over.exp(x - over.peak(x))
    return e / over.sum(e)


def logsumexp(over: Algebra, x: Tensor) -> Array:
    """Over the last axis, which goes."""
    r = over.lift(x)
    peak = over.peak(r)
    return (peak + over.log(over.sum(over.exp(r - peak))))[..., 0]


def attention(
    over: Algebra,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    visible: Tensor,
    cap: float | None = None,
) -> Array:
    """q [.., H, T, d], k [.., G, K, d], v [.., G, K, h], visible [T, K] -> [.., H, T, h]."""
    group = q.shape[-3] // k.shape[-3]
    keys, values = (over.repeat(over.lift(x), group) for x in (k, v))
    scores = over.matmul(over.lift(q), over.transpose(keys)) * over.lift(scale)
    if cap is not None:
        scores = _soft_cap(over, scores, cap)
    return over.matmul(_softmax(over, over.hide(scores, visible)), values)


def soft_cap(over: Algebra, x: Tensor, cap: float) -> Array:
    """cap * tanh(x / cap)."""
    return _soft_cap(over, over.lift(x), cap)


def _soft_cap(over: Algebra, r: Array, cap: float) -> Array:
    return over.tanh(r / over.lift(cap)) * over.lift(cap)


def rope(
    over: Algebra,
    x: Tensor,
    positions: Tensor | None,
    theta: float | None,
    inv_freq: tuple[float, ...] | None,
    attention_factor: float | None,
    cos: Tensor | None,
    sin: Tensor | None,
) -> Array:
    """x [.., d] rotated in pairs (i, i + d/2) by positions * theta**(-2i/d) or positions *
    inv_freq[i], times attention_factor; or by tables."""
    half = x.shape[-1] // 2
    r = over.lift(x)
    first, second = r[..., :half], r[..., half:]
    if cos is None or sin is None:
        assert positions is not None, "checked inputs have positions or tables"
        if inv_freq is not None:
            frequency = over.lift(torch.tensor(inv_freq, dtype=torch.float64))
        else:
            assert theta is not None
            exponent = over.lift(-torch.arange(half, dtype=torch.float64)) / float(half)
            frequency = over.power(theta, exponent)
        angle = over.lift(positions)[..., None] * frequency
        factor = over.lift(1.0 if attention_factor is None else attention_factor)
        c, s = over.cos(angle) * factor, over.sin(angle) * factor
    else:
        c, s = over.lift(cos), over.lift(sin)
    return over.concatenate([first * c - second * s, second * c + first * s])


def silu(over: Algebra, x: Tensor) -> Array:
    r = over.lift(x)
    return r / (over.exp(-r) + 1.0)


def swiglu(over: Algebra, gate: Tensor, up: Tensor, activation: str) -> Array:
    activated = silu(over, gate) if activation == "silu" else gelu(over, gate, "tanh")
    return activated * over.lift(up)


def gelu(over: Algebra, x: Tensor, approximate: str) -> Array:
    """x * Phi(x), or its approximation by tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    r = over.lift(x)
    if approximate == "none":
        return r * over.erfc(-r / over.sqrt(over.lift(2.0))) * 0.5
    # 0.5 (1 + tanh z) = 1 / (1 + exp(-2z)), which does not cancel for negative x.
    return r / (over.exp(gelu_argument(over, r) * -2.0) + 1.0)


def gelu_argument(over: Algebra, r: Array) -> Array:
    inner = r + r * r * r * over.lift(GELU_CUBIC)
    return inner * over.sqrt(over.lift(2.0) / over.constant("pi"))


_DEFINITIONS: dict[str, Callable[..., Array]] = {
    "matmul": matmul,
    "rms_norm": rms_norm,
    "layer_norm": layer_norm,
    "softmax": softmax,
    "logsumexp": logsumexp,
    "attention": attention,
    "soft_cap": soft_cap,
    "rope": rope,
    "silu": silu,
    "swiglu": swiglu,
    "gelu": gelu,
}


def evaluate(over: Algebra, op: str, arguments: Mapping[str, Any]) -> Any:
    """`op` of `arguments_of(op, inputs)`."""
    return _DEFINITIONS[op](over, **arguments)


def arguments_of(op: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs checked (InputsError) and completed, less what attention's `visible` already says."""
    arguments = validate_inputs(op, inputs)
    if op == "attention":
        for name in ("causal", "window", "past"):
            del arguments[name]
    return arguments
