"""The record of sums over ranks, with its check and seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, checked_tensor
from ..operation import Axes, Operation, Scaling, WrongFormula
from ..products.record import MATMUL
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing


def _check(op: str, inputs: dict[str, Any]) -> None:
    x, chunks = checked_tensor(op, inputs, "x", 2), inputs["ring"]
    inputs["average"] = bool(inputs["average"])
    if x.ndim != 2 or (chunks is not None and (not isinstance(chunks, int) or chunks < 1)):
        raise InputsError(f"{op}: x must be [elements, ranks], ring a number of chunks")
    elements, ranks = x.shape
    order = torch.arange(ranks)[None] if chunks is None else program.ring(elements, ranks, chunks)
    inputs["order_of_ranks"] = order


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.normal(64, 320), "average": True}


def _vanishing_terms(draw: SeededDraw) -> dict[str, Any]:
    """A product's, multiplied out: with a factor of 1, terms and weights are squares."""
    factors = MATMUL.separating["reordered_reduction"](draw)
    return {"x": draw.stored(factors["a"].double() * factors["b"].double()[:, 0])}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


RANK_SUM = Operation(
    name="rank_sum",
    arguments=("x",),
    optional=("average", "ring"),
    cast_points=("sum", "output"),
    reduces=True,
    check=_check,
    implied=("ring",),
    program=program.rank_sum,
    real=real.rank_sum,
    bound=bound.rank_sum_bound,
    spread=bound.rank_sum_spread,
    axes=Axes({"x": "mk"}, "m", "m", "k"),
    scalings=(Scaling({"x": 1}, 1),),
    wrong=(WrongFormula("average_ignored", "gives the sum for the mean", wrong.without_average),),
    ordinary=_ordinary,
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny[None]},
        "reordered_reduction": _vanishing_terms,
        "other_overflow": lambda draw: {"x": draw.full((1, 2), draw.format.largest)},
    },
    drawings=_drawings,
)
OPERATIONS = (RANK_SUM,)
