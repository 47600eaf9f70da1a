"""Adam's step over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def adam_step(
    over: Algebra,
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
) -> Array:
    """m and v are running means of g and g^2; p - rate m^ / (sqrt(v^) + eps), decayed."""
    p, g = over.lift(parameter), over.lift(gradient)
    b1, b2, one = over.lift(beta1), over.lift(beta2), over.lift(1.0)
    if not decoupled:
        g = g + p * over.lift(decay)
    m = over.lift(first) * b1 + g * (one - b1)
    v = over.lift(second) * b2 + g * g * (one - b2)
    if result != "parameter":
        return m if result == "first" else v
    power1, power2 = one, one
    for _ in range(step):
        power1, power2 = power1 * b1, power2 * b2
    root = over.sqrt(v / (one - power2))
    moved = m / (one - power1) / (root + over.lift(eps)) * over.lift(rate)
    kept = p * (one - over.lift(rate) * over.lift(decay)) if decoupled else p
    return kept - moved
