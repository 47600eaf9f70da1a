"""One public bug: who reported it, what it computes, what is right, and inputs that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ....precision.contract import PrecisionContract

Tensor = torch.Tensor
Implementation = Callable[..., Tensor]


@dataclass(frozen=True)
class PublicBug:
    """A bug in somebody's operation, reproduced in a few lines of our own.

    Attributes:
        reports: "owner/repository#number" of issues and pull requests, the first one's the model.
        summary: What goes wrong, in a line.
        contract: What the operation promises.
        wrong, right: The bug and its correct twin, called with the operation's arguments.
        inputs: Makes arguments on which the two part.
        address: Which operation of a model is to compute it for an audit; None where no short
            prompt on one of our models shows it.
    """

    reports: tuple[str, ...]
    summary: str
    contract: PrecisionContract
    wrong: Implementation
    right: Implementation
    inputs: Callable[[], dict[str, Any]]
    address: str | None = None


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sum_in_bf16(terms: Tensor) -> Tensor:
    """Adds bf16 terms along the last axis, rounding after each."""
    total = terms[..., 0]
    for i in range(1, terms.shape[-1]):
        total = total + terms[..., i]
    return total
