"""Rotary position embedding over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


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
