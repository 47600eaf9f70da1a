"""SiLU, GELU and SwiGLU over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


GELU_CUBIC = 0.044715


def silu(over: Algebra, x: Tensor) -> Array:
    r = over.lift(x)
    return r / (over.exp(-r) + 1.0)


def swiglu(over: Algebra, gate: Tensor, up: Tensor, activation: str) -> Array:
    activated = silu(over, gate) if activation == "silu" else gelu(over, gate, "tanh")
    return activated * over.lift(up)


def clamped_swiglu(
    over: Algebra, gate: Tensor, up: Tensor, limit: float, alpha: float, offset: float
) -> Array:
    g = over.lift(gate.double().clamp(max=limit))
    u = over.lift(up.double().clamp(-limit, limit))
    return g / (over.exp(-g * over.lift(alpha)) + 1.0) * (u + over.lift(offset))


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
