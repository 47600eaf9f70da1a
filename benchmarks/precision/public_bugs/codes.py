"""Codes rounded by another rule, scales a power of two off, and a scale that is not the stored one.

Blocks of 4 for those of 16, 32 or 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ....precision.contract import PrecisionContract
from ....precision.formats import round_to
from .bug import Implementation, PublicBug, Tensor, normal

INT8, FP4 = (PrecisionContract("quantize", output=codes) for codes in ("int8", "fp4_e2m1"))
FP8 = PrecisionContract("quantize", output="fp8_e4m3")
SCALE = PrecisionContract("block_scale")


def _codes(rounded: Callable[[Tensor], Tensor], *, power_later: bool = False) -> Implementation:
    def quantize(
        x: Tensor,
        scale: Tensor,
        zero_point: int = 0,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        s = scale.double()
        if power_later:  # the codes by a scale that is rounded to a power of two afterwards
            s = s * 0.75
        blocks = x.double().reshape(*s.shape, -1) / s[..., None] + zero_point
        return rounded(blocks.clamp(low, high)).reshape(x.shape).float()

    return quantize


def _to(codes: str) -> Callable[[Tensor], Tensor]:
    return lambda x: round_to(x, codes, overflow="saturate")


def _ties_away(x: Tensor) -> Tensor:
    return ((x.abs() + 0.5).floor() * x.sign()).clamp(-127, 127)


def _truncated(x: Tensor) -> Tensor:
    return x.trunc().clamp(-127, 127)


def _fp4_ties_away(x: Tensor) -> Tensor:
    return _to("fp4_e2m1")(x * (1 + 2.0**-20))


def _scale(of: Callable[[Tensor, float], Tensor], wrong_for: str) -> Implementation:
    def block_scale(
        x: Tensor, block: int, limit: float = 127.0, power: str | None = None
    ) -> Tensor:
        peak = x.double().abs().reshape(*x.shape[:-1], -1, block).amax(-1)
        if power != wrong_for:
            return _right_scale(peak, limit, power).float()
        return torch.where(peak == 0, 0.0, of(peak, limit)).float()

    return block_scale


def _floor_log2(x: Tensor) -> Tensor:
    return (torch.frexp(x).exponent - 1).double()


def _floor_of_quotient(peak: Tensor, limit: float) -> Tensor:
    return torch.exp2(_floor_log2(peak / limit))


def _nearest(peak: Tensor, limit: float) -> Tensor:
    return torch.exp2(torch.log2(peak / limit).round())


def _right_scale(peak: Tensor, limit: float, power: str | None) -> Tensor:
    if power is None:
        return peak / limit
    if power == "floor":
        scale = torch.exp2(_floor_log2(peak) - math.floor(math.log2(limit)))
    else:
        below = torch.exp2(_floor_log2(peak / limit))
        scale = torch.where(below * limit == peak, below, 2 * below)
    return torch.where(peak == 0, 0.0, scale)


def _right(power: str) -> Implementation:
    return _scale(lambda peak, limit: _right_scale(peak, limit, power), power)


def _values(*, divided: bool) -> Implementation:
    def dequantize(codes: Tensor, scale: Tensor, minimum: Tensor | None = None) -> Tensor:
        s = scale.double()[..., None]
        blocks = codes.double().reshape(*scale.shape, -1)
        values = blocks / s if divided else blocks * s
        values = values if minimum is None else values + minimum.double()[..., None]
        return values.reshape(codes.shape).float()

    return dequantize


def _ternary() -> dict[str, Any]:
    return {"codes": torch.tensor([[-1.0, 0.0, 1.0]]), "scale": torch.tensor([[1.555]])}


def _ties() -> dict[str, Any]:
    return {"x": torch.tensor([[0.25, 0.75, 1.25, 1.75]]), "scale": torch.tensor([[0.5]])}


def _gaussian() -> dict[str, Any]:
    return {"x": normal(4, 16), "scale": torch.full((4, 4), 0.25)}


def _blocks(power: str) -> dict[str, Any]:
    return {"x": 3 * normal(8, 16), "block": 4, "limit": 6.0, "power": power}


BUGS = (
    PublicBug(
        ("sonos/tract#2850", "microsoft/onnxruntime#25045", "tenstorrent/tt-metal#56525"),
        "int8 codes with ties away from zero",
        INT8, _codes(_ties_away), _codes(_to("int8")), _ties,
    ),
    PublicBug(
        ("sgl-project/sglang-jax#1598",),
        "int8 codes cut off toward zero",
        INT8, _codes(_truncated), _codes(_to("int8")), _gaussian,
    ),
    PublicBug(
        ("ROCm/aiter#3992",),
        "fp4 codes with ties away from zero",
        FP4, _codes(_fp4_ties_away), _codes(_to("fp4_e2m1")),
        lambda: {"x": torch.tensor([[1.25, 2.5, 5.0, 0.25]]), "scale": torch.tensor([[1.0]])},
    ),
    PublicBug(
        ("huggingface/transformers#46763",),
        "fp8 codes by a scale that is rounded to a power of two only when it is stored",
        FP8, _codes(_to("fp8_e4m3"), power_later=True), _codes(_to("fp8_e4m3")), _gaussian,
    ),
    PublicBug(
        ("vllm-project/vllm#43557",),
        "an MXFP4 scale from the exponent of a quotient: half of what it should be",
        SCALE, _scale(_floor_of_quotient, "floor"), _right("floor"), lambda: _blocks("floor"),
    ),
    PublicBug(
        ("ml-explore/mlx#4353", "Pushkinist/rMLX#463"),
        "an MX scale rounded to the nearest power of two: the largest is cut off",
        SCALE, _scale(_nearest, "up"), _right("up"), lambda: _blocks("up"),
    ),
    PublicBug(
        ("microsoft/BitNet#616",),
        "codes divided by their scale, not multiplied",
        PrecisionContract("dequantize"), _values(divided=True), _values(divided=False), _ternary,
    ),
)  # fmt: skip
