"""RoPE whose angles or positions are formed too narrowly."""

from __future__ import annotations

from typing import Any

import torch

from ....precision.contract import PrecisionContract
from .bug import Implementation, PublicBug, Tensor, normal

ROPE = PrecisionContract("rope")


def _rope_in(positions_in: torch.dtype, angles_in: torch.dtype) -> Implementation:
    def rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
        half = x.shape[-1] // 2
        frequency = 1.0 / theta ** (torch.arange(half, dtype=torch.float64) / half)
        places = positions.to(positions_in).to(angles_in)
        angle = (places[:, None] * frequency.to(angles_in)).double()
        return _turned(x, angle.cos().float(), angle.sin().float())

    return rope


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


RIGHT = _rope_in(torch.float64, torch.float64)


def _long() -> dict[str, Any]:
    return {"x": normal(3, 8), "positions": torch.tensor([255, 2049, 70001]), "theta": 10000.0}


BUGS = (
    PublicBug(
        ("huggingface/transformers#25681",),
        "RoPE positions counted in bf16: none above 256 is its own",
        ROPE, _rope_in(torch.bfloat16, torch.float32), RIGHT, _long,
    ),
    PublicBug(
        ("huggingface/transformers#29285",),
        "RoPE angles multiplied in bf16 under autocast",
        ROPE, _rope_in(torch.float64, torch.bfloat16), RIGHT, _long, "rotary",
    ),
    PublicBug(
        ("huggingface/candle#3520",),
        "RoPE angles in fp16: infinite past 65504",
        ROPE, _rope_in(torch.float16, torch.float16), RIGHT, _long, "rotary",
    ),
)  # fmt: skip
