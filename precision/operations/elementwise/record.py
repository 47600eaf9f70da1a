"""The records of sums, products, sigmoid and tanh, with their checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import broadcasts, check_x, checked_tensor, mismatch
from ..operation import Axes, Operation, Scaling, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check_operands(op: str, inputs: dict[str, Any]) -> None:
    a, b = checked_tensor(op, inputs, "a"), checked_tensor(op, inputs, "b")
    if not broadcasts(b.shape, a.shape, into=True):
        raise mismatch(op, inputs, "a", "b")


def _operands(draw: SeededDraw) -> dict[str, Any]:
    return {"a": draw.normal(8, 320), "b": draw.normal(8, 320)}


def _argument(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.normal(8, 320)}


def _subnormal_sigmoid(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.full((1,), math.log(0.75 * draw.format.smallest_normal))}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


_OPERANDS = Axes({"a": "md", "b": "md"}, "md", "md", "")
_ARGUMENT = Axes({"x": "md"}, "md", "md", "")

ADD = Operation(
    name="add",
    arguments=("a", "b"),
    cast_points=("output",),
    every_step_cast=True,
    check=_check_operands,
    program=program.add,
    real=real.add,
    bound=bound.add_bound,
    spread=bound.add_spread,
    axes=_OPERANDS,
    scalings=(Scaling({"a": 1, "b": 1}, 1),),
    ordinary=_operands,
    separating={
        "flush_to_zero": lambda draw: {"a": draw.tiny, "b": draw.full((1,), 0.0)},
        "other_overflow": lambda draw: {"a": draw.largest, "b": draw.largest},
    },
    drawings=_drawings,
)

MUL = Operation(
    name="mul",
    arguments=("a", "b"),
    cast_points=("output",),
    every_step_cast=True,
    check=_check_operands,
    program=program.mul,
    real=real.mul,
    bound=bound.mul_bound,
    spread=bound.mul_spread,
    axes=_OPERANDS,
    scalings=(Scaling({"a": 1}, 1), Scaling({"b": 1}, 1)),
    ordinary=_operands,
    separating={
        "flush_to_zero": lambda draw: {"a": draw.tiny, "b": draw.full((1,), 1.0)},
        "other_overflow": lambda draw: {"a": draw.largest, "b": draw.full((1,), 2.0)},
    },
    drawings=_drawings,
)

SIGMOID = Operation(
    name="sigmoid",
    arguments=("x",),
    cast_points=("output",),
    check=check_x,
    program=program.sigmoid,
    real=real.sigmoid,
    bound=bound.sigmoid_bound,
    spread=bound.sigmoid_spread,
    axes=_ARGUMENT,
    wrong=(
        WrongFormula(
            "positive_exponent",
            "divides exp(x) by 1 + exp(x)",
            wrong.sigmoid_by_positive_exponent,
        ),
    ),
    ordinary=_argument,
    separating={
        "flush_to_zero": _subnormal_sigmoid,
        "positive_exponent": lambda draw: {"x": draw.full((1,), 100.0)},
    },
    drawings=_drawings,
)

TANH = Operation(
    name="tanh",
    arguments=("x",),
    cast_points=("output",),
    every_step_cast=True,
    check=check_x,
    program=program.tanh,
    real=real.tanh,
    bound=bound.tanh_bound,
    spread=bound.tanh_spread,
    axes=_ARGUMENT,
    wrong=(
        WrongFormula(
            "tanh_of_exponentials",
            "divides exp(2x) - 1 by exp(2x) + 1",
            wrong.tanh_by_exponentials,
        ),
    ),
    ordinary=_argument,
    separating={
        "flush_to_zero": lambda draw: {"x": draw.tiny},
        "tanh_of_exponentials": lambda draw: {"x": draw.full((1,), 50.0)},
    },
    drawings=_drawings,
)
OPERATIONS = (ADD, MUL, SIGMOID, TANH)
