"""The records of quantisation, with their checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, check_number, check_positive, checked_tensor, mismatch
from ..operation import Axes, Operation, Scaling, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check_blocks(op: str, inputs: dict[str, Any], name: str, *per_block: str) -> None:
    x = checked_tensor(op, inputs, name)
    for other in per_block:
        if inputs[other] is None:
            continue
        blocks = checked_tensor(op, inputs, other)
        if blocks.shape[:-1] != x.shape[:-1] or x.shape[-1] % blocks.shape[-1]:
            raise mismatch(op, inputs, name, other)


def _check_quantize(op: str, inputs: dict[str, Any]) -> None:
    _check_blocks(op, inputs, "x", "scale")
    if not bool((inputs["scale"].double() > 0).all()):
        raise InputsError(f"{op}: every scale must be positive")
    inputs["zero_point"] = int(inputs["zero_point"] or 0)
    for name, default in (("low", -math.inf), ("high", math.inf)):
        inputs[name] = float(default if inputs[name] is None else inputs[name])
    if not inputs["low"] < inputs["high"]:
        raise InputsError(f"{op}: low={inputs['low']} must be below high={inputs['high']}")


def _check_dequantize(op: str, inputs: dict[str, Any]) -> None:
    codes = inputs["codes"]
    if isinstance(codes, Tensor) and codes.dtype in (torch.int8, torch.uint8, torch.int16):
        inputs["codes"] = codes.float()
    _check_blocks(op, inputs, "codes", "scale", "minimum")
    if inputs["minimum"] is not None and inputs["minimum"].shape != inputs["scale"].shape:
        raise mismatch(op, inputs, "scale", "minimum")


def _check_block_scale(op: str, inputs: dict[str, Any]) -> None:
    x, block = checked_tensor(op, inputs, "x"), inputs["block"]
    if not isinstance(block, int) or block < 1 or x.shape[-1] % block:
        raise InputsError(f"{op}: block={block!r} must divide the {x.shape[-1]} elements of a row")
    check_number(op, inputs, "limit", 127.0, above=0.0)
    check_positive(op, inputs, "limit")
    if inputs["power"] not in (None, "floor", "up"):
        raise InputsError(f"{op}: power={inputs['power']!r}: use 'floor', 'up' or leave it out")


def _codes(draw: SeededDraw) -> dict[str, Any]:
    scale = draw.stored(0.5 + draw.uniform(8, 10))
    return {"x": draw.normal(8, 320), "scale": scale, "zero_point": 3}


def _values(draw: SeededDraw) -> dict[str, Any]:
    return {
        "codes": draw.normal(8, 320),
        "scale": draw.normal(8, 10),
        "minimum": draw.normal(8, 10),
    }


def _peaks(draw: SeededDraw, **power: str) -> dict[str, Any]:
    """A limit that no format of 16 bits holds."""
    return {"x": draw.normal(64, 320), "block": 32, "limit": 7.3, **power}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


QUANTIZE = Operation(
    name="quantize",
    arguments=("x", "scale"),
    optional=("zero_point", "low", "high"),
    cast_points=("output",),
    check=_check_quantize,
    program=program.quantize,
    real=real.quantize,
    bound=bound.quantize_bound,
    spread=bound.quantize_spread,
    axes=Axes({"x": "md", "scale": "mb"}, "md", "m", ""),
    ordinary=_codes,
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny, "scale": draw.full((1,), 1.0)},
        "other_overflow": lambda draw: {"x": draw.largest, "scale": draw.full((1,), 0.5)},
    },
    drawings=_drawings,
)

DEQUANTIZE = Operation(
    name="dequantize",
    arguments=("codes", "scale"),
    optional=("minimum",),
    cast_points=("output",),
    check=_check_dequantize,
    program=program.dequantize,
    real=real.dequantize,
    bound=bound.dequantize_bound,
    spread=bound.dequantize_spread,
    axes=Axes({"codes": "md", "scale": "mb", "minimum": "mb"}, "md", "m", ""),
    scalings=(Scaling({"scale": 1, "minimum": 1}, 1),),
    wrong=(
        WrongFormula("divided_by_scale", "divides codes by their scale", wrong.divided_by_scale),
    ),
    ordinary=_values,
    separating={
        "flush_to_zero": lambda draw: {"codes": draw.full((1,), 1.0), "scale": draw.tiny},
        "other_overflow": lambda draw: {"codes": draw.full((1,), 2.0), "scale": draw.largest},
    },
    drawings=_drawings,
)

BLOCK_SCALE = Operation(
    name="block_scale",
    arguments=("x", "block"),
    optional=("limit", "power"),
    cast_points=("output",),
    check=_check_block_scale,
    program=program.block_scale,
    real=real.block_scale,
    bound=bound.block_scale_bound,
    spread=bound.block_scale_spread,
    axes=Axes({"x": "md"}, "mb", "m", ""),
    scalings=(Scaling({"x": 1}, 1),),
    wrong=(
        WrongFormula(
            "exponent_of_quotient",
            "takes the exponent of a quotient for a difference of exponents",
            wrong.exponent_of_quotient,
        ),
        WrongFormula("nearest_power", "rounds a scale to the nearest power", wrong.nearest_power),
    ),
    ordinary=_peaks,
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny, "block": 1, "limit": 1.0},
        "other_overflow": lambda draw: {"x": draw.largest, "block": 1, "limit": 0.5},
        "exponent_of_quotient": lambda draw: _peaks(draw, power="floor"),
        "nearest_power": lambda draw: _peaks(draw, power="up"),
    },
    drawings=_drawings,
)
OPERATIONS = (QUANTIZE, DEQUANTIZE, BLOCK_SCALE)
