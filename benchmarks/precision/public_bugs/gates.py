"""Clamped gates without their limit or their offset."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import PublicBug, Tensor

CLAMPED = PrecisionContract("clamped_swiglu")


def _gate(gate: Tensor, up: Tensor, alpha: float, offset: float) -> Tensor:
    g, u = gate.double(), up.double()
    return ((u + offset) * (g * torch.sigmoid(alpha * g))).float()


def _clamped(
    gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702, offset: float = 1.0
) -> Tensor:
    return _gate(gate.clamp(max=limit), up.clamp(-limit, limit), alpha, offset)


def _without_offset(
    gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702, offset: float = 1.0
) -> Tensor:
    return _clamped(gate, up, limit, alpha, 0.0)


def _without_limit(
    gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702, offset: float = 1.0
) -> Tensor:
    return _gate(gate, up, alpha, offset)


def _clamped_below(
    gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702, offset: float = 1.0
) -> Tensor:
    return _clamped(gate.clamp(min=-limit), up, limit, alpha, offset)


def _wide() -> dict[str, Any]:
    return {"gate": torch.tensor([9.0, -8.0, 1.0]), "up": torch.tensor([0.5, 9.0, -9.0])}


BUGS = (
    PublicBug(
        ("sgl-project/sglang#39939",),
        "gpt-oss's gate without the + 1 of its other factor",
        CLAMPED, _without_offset, _clamped, _wide,
    ),
    PublicBug(
        ("sgl-project/sglang#31935",),
        "the limit of a clamped gate ignored",
        CLAMPED, _without_limit, _clamped, _wide,
    ),
    PublicBug(
        ("anthony-chaudhary/fak#4837",),
        "the gate clamped from below, too",
        CLAMPED, _clamped_below, _clamped,
        lambda: {"gate": torch.tensor([-8.0]), "up": torch.tensor([3.0]), "alpha": 1.0},
    ),
)  # fmt: skip
