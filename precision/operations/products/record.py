"""The record of the matrix product, with its checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import Inputs, broadcasts, checked_tensor, mismatch
from ..operation import Axes, Eager, Native, Operation, Scaling
from ..seeded import SeededDraw
from .bound import matmul_bound, matmul_spread
from .program import matmul
from .real import matmul as real_matmul

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any]) -> None:
    a, b = checked_tensor(op, inputs, "a", 2), checked_tensor(op, inputs, "b", 2)
    if a.shape[-1] != b.shape[-2] or not broadcasts(a.shape[:-2], b.shape[:-2]):
        raise mismatch(op, inputs, "a", "b")
    if inputs["bias"] is not None and checked_tensor(op, inputs, "bias").shape != b.shape[-1:]:
        raise mismatch(op, inputs, "b", "bias")


def _roundings(inputs: Inputs) -> int:
    return int(inputs["a"].numel() * inputs["b"].shape[-1])


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.normal(8, 320), "b": draw.normal(320, 48), "bias": draw.normal(48)}


def _vanishing_terms(draw: SeededDraw) -> dict[str, Any]:
    """Just above the middle of two stored numbers, by what the last terms add up to."""
    n = 2048
    root = math.sqrt(0.75 * draw.accumulate.unit_roundoff)
    a = torch.full((1, n), root, dtype=torch.float64)
    a[0, :2] = torch.tensor([1.0, draw.format.unit_roundoff])
    b = torch.full((n, 1), root, dtype=torch.float64)
    b[:2] = 1.0
    return {"a": draw.stored(a), "b": draw.stored(b)}


def _short_sums(draw: SeededDraw) -> dict[str, Any]:
    """Inputs whose short sums leave too little to reach across the bits of a second rounding."""
    return {"a": draw.normal(16, 16), "b": draw.normal(16, 64)}


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.tiny[None], "b": draw.full((1,), 1.0)[None]}


def _overflowing(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.largest[None], "b": draw.full((1,), 2.0)[None]}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


MATMUL = Operation(
    name="matmul",
    arguments=("a", "b"),
    optional=("bias",),
    cast_points=("inputs", "product", "output"),
    reduces=True,
    multiplies=True,
    fuses=True,
    check=_check,
    program=matmul,
    real=real_matmul,
    bound=matmul_bound,
    spread=matmul_spread,
    roundings=_roundings,
    axes=Axes({"a": "mk", "b": "kn", "bias": "n"}, "mn", "mn", "k"),
    scalings=(Scaling({"a": 1, "bias": 1}, 1), Scaling({"b": 1, "bias": 1}, 1)),
    native=Native(order="blocked:256"),
    eager=Eager(flushes=True),
    ordinary=_ordinary,
    separating={
        "flush_to_zero": _subnormal,
        "reordered_reduction": _vanishing_terms,
        "other_overflow": _overflowing,
        "double_rounding": _short_sums,
    },
    drawings=_drawings,
)
OPERATIONS = (MATMUL,)
