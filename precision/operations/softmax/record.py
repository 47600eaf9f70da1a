"""The records of softmax and logsumexp, with their seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import check_x
from ..operation import Axes, Native, Operation
from ..seeded import SeededDraw
from . import program, real
from .bound import logsumexp_bound, logsumexp_spread, softmax_bound, softmax_spread

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


LARGE_TERMS = 60


def vanishing_scores(draw: SeededDraw, rows: int) -> Tensor:
    """60 exponentials that add up to a little over 17, then many of which none moves that sum."""
    small = math.log(16 * 0.85 * draw.accumulate.unit_roundoff)
    x = torch.full((rows, 2048), small, dtype=torch.float64)
    x[:, :LARGE_TERMS] = -2 - 10 * draw.uniform(rows, LARGE_TERMS)
    x[:, :17] = 0.0
    return draw.stored(x)


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    small = 0.75 * draw.format.smallest_normal
    return {"x": draw.stored(torch.tensor([[0.0, math.log(small / 2)]]).double())}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


SOFTMAX = Operation(
    name="softmax",
    arguments=("x",),
    cast_points=("exponentials", "sum", "output"),
    statistics=("sum",),
    reduces=True,
    masked=True,
    check=check_x,
    program=program.softmax,
    real=real.softmax,
    bound=softmax_bound,
    spread=softmax_spread,
    axes=Axes({"x": "md"}, "md", "m", "d"),
    native=Native(order="blocked:256", function_ulp=1.0, fp32=True, stepwise="bf16"),
    ordinary=lambda draw: {"x": draw.normal(8, 320)},
    separating={
        "flush_to_zero": _subnormal,
        "reordered_reduction": lambda draw: {"x": vanishing_scores(draw, 32)},
    },
    drawings=_drawings,
)

LOGSUMEXP = Operation(
    name="logsumexp",
    arguments=("x",),
    cast_points=("exponentials", "sum", "output"),
    statistics=("sum",),
    reduces=True,
    masked=True,
    check=check_x,
    program=program.logsumexp,
    real=real.logsumexp,
    bound=logsumexp_bound,
    spread=logsumexp_spread,
    axes=Axes({"x": "md"}, "m", "m", "d"),
    native=Native(order="blocked:256", function_ulp=1.0, fp32=True),
    ordinary=lambda draw: {"x": draw.normal(2048, 4)},
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny[None]},
        "reordered_reduction": lambda draw: {"x": vanishing_scores(draw, 512)},
    },
    drawings=_drawings,
)
OPERATIONS = (SOFTMAX, LOGSUMEXP)
