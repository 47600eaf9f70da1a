"""The record of rotary position embedding, with its checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import Inputs, InputsError, broadcasts, check_number, checked_tensor, mismatch
from ..operation import Axes, Eager, Native, Operation, Scaling
from ..seeded import SeededDraw
from .bound import rope_bound, rope_spread
from .program import rope
from .real import rope as real_rope

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any]) -> None:
    x = checked_tensor(op, inputs, "x")
    if x.shape[-1] % 2:
        raise InputsError(f"rope: x {list(x.shape)} has an odd last axis; it is rotated in pairs")
    tables = [inputs[name] is not None for name in ("cos", "sin")]
    if any(tables):
        others = ("positions", "theta", "inv_freq", "attention_factor")
        if not all(tables) or any(inputs[name] is not None for name in others):
            raise InputsError("rope: give either cos and sin, or positions and theta or inv_freq")
        for name in ("cos", "sin"):
            inputs[name] = _half_table(op, inputs, name, x)
        return
    positions = inputs["positions"]
    if not isinstance(positions, Tensor) or positions.is_floating_point():
        raise InputsError("rope: positions must be an integer tensor (or give cos and sin)")
    if not broadcasts(positions.shape, x.shape[:-1], into=True):
        raise mismatch(op, inputs, "x", "positions")
    if positions.numel() and (int(positions.min()) < 0 or int(positions.max()) >= 2**31):
        raise InputsError("rope: positions must lie in [0, 2^31)")
    check_number(op, inputs, "attention_factor", 1.0, above=0.0)
    if inputs["inv_freq"] is None:
        check_number(op, inputs, "theta", 10000.0, above=1.0)
    else:
        inputs["inv_freq"] = _frequencies(op, inputs, x.shape[-1] // 2)


def _frequencies(op: str, inputs: Inputs, half: int) -> tuple[float, ...]:
    """Radians a position, one for each pair; parameters like theta, not data."""
    if inputs["theta"] is not None:
        raise InputsError("rope: give either theta or inv_freq")
    given = inputs["inv_freq"]
    found = tuple(given.tolist() if isinstance(given, Tensor) else given)
    numbers = all(isinstance(f, int | float) and math.isfinite(f) and f >= 0 for f in found)
    if len(found) != half or not numbers:
        raise InputsError(f"rope: inv_freq must hold {half} finite numbers from 0 up, got {given}")
    return tuple(map(float, found))


def _half_table(op: str, inputs: Inputs, name: str, x: Tensor) -> Tensor:
    """Tables may come twice side by side, as Hugging Face keeps them."""
    table, half = checked_tensor(op, inputs, name), x.shape[-1] // 2
    if table.shape[-1] == 2 * half and half:
        if not torch.equal(table[..., :half], table[..., half:]):
            raise InputsError(f"rope: the two halves of {name} differ, so they are no table")
        table = table[..., :half]
    if table.shape[-1] != half or not broadcasts(table.shape[:-1], x.shape[:-1], into=True):
        raise mismatch(op, inputs, "x", name)
    return table


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    positions = torch.arange(100, 120)
    return {"x": draw.normal(4, 20, 32), "positions": positions, "theta": 10000.0}


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    return {"x": torch.cat([draw.tiny, draw.full((1,), 0.0)])[None], "positions": torch.tensor([0])}


def _overflowing(draw: SeededDraw) -> dict[str, Any]:
    x = torch.cat([draw.largest, draw.largest])[None]
    return {"x": x, "cos": draw.full((1, 1), 0.75), "sin": draw.full((1, 1), 0.75)}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


ROPE = Operation(
    name="rope",
    arguments=("x",),
    optional=("positions", "theta", "inv_freq", "attention_factor", "cos", "sin"),
    cast_points=("tables", "products", "output"),
    check=_check,
    program=rope,
    real=real_rope,
    bound=rope_bound,
    spread=rope_spread,
    axes=Axes({"x": "htd", "positions": "t", "cos": "td", "sin": "td"}, "htd", "ht", ""),
    scalings=(Scaling({"x": 1}, 1),),
    native=Native(angles="fp64"),
    eager=Eager(casts=("tables", "products")),
    ordinary=_ordinary,
    separating={"flush_to_zero": _subnormal, "other_overflow": _overflowing},
    drawings=_drawings,
)
OPERATIONS = (ROPE,)
