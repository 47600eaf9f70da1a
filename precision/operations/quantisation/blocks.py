"""Blocks along the last axis, and powers of two as scales; n elements in b blocks."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def spread(x: Tensor, n: int) -> Tensor:
    """One number a block, [.., b], as one an element, [.., n]."""
    return x.repeat_interleave(n // x.shape[-1], -1)


def largest(x: Tensor, block: int) -> Tensor:
    """The largest of each block, [.., b]."""
    return x.reshape(*x.shape[:-1], -1, block).amax(-1)


def power_below(x: Tensor) -> Tensor:
    """The largest power of two that is not above x (fp64), its exponent field; 0 for 0."""
    return (x.contiguous().view(torch.int64) & 0x7FF0_0000_0000_0000).view(torch.float64)


def power_above(x: Tensor) -> Tensor:
    """The smallest power of two that is not below x; 0 for 0."""
    below = power_below(x)
    return torch.where(below == x, below, 2 * below)
