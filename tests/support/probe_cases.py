"""Conversations with a concept planted in them, for tests of probes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Planted(NamedTuple):
    """Attributes: x: [B, S, D]. mask: Bool [B, S]. y: int64 [B]. direction: [D], of unit norm."""

    x: torch.Tensor
    mask: torch.Tensor
    y: torch.Tensor
    direction: torch.Tensor


def planted(
    n: int = 160, longest: int = 12, d: int = 24, strength: float = 1.0, seed: int = 0
) -> Planted:
    """Returns noise to which `strength` times a direction is added at every token of positives."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, longest, d, generator=generator)
    lengths = torch.randint(3, longest + 1, (n,), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    y = torch.arange(n) % 2
    direction = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    x = x + strength * y[:, None, None] * direction
    return Planted(x.where(mask[:, :, None], 0.0), mask, y, direction)
