"""The records of SiLU, GELU and their gates, with their checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import (
    InputsError,
    check_number,
    check_positive,
    check_x,
    checked_tensor,
    mismatch,
)
from ..operation import Axes, Eager, Native, Operation, Scaling, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check_gelu(op: str, inputs: dict[str, Any]) -> None:
    check_x(op, inputs)
    inputs["approximate"] = inputs["approximate"] or "none"
    if inputs["approximate"] not in ("none", "tanh"):
        raise InputsError(f"gelu: approximate={inputs['approximate']!r}: use 'none' or 'tanh'")


def _check_swiglu(op: str, inputs: dict[str, Any]) -> None:
    if checked_tensor(op, inputs, "gate").shape != checked_tensor(op, inputs, "up").shape:
        raise mismatch(op, inputs, "gate", "up")
    _check_activation(op, inputs)


def _check_clamped_swiglu(op: str, inputs: dict[str, Any]) -> None:
    if checked_tensor(op, inputs, "gate").shape != checked_tensor(op, inputs, "up").shape:
        raise mismatch(op, inputs, "gate", "up")
    check_number(op, inputs, "limit", 7.0, above=0.0)
    check_positive(op, inputs, "limit")
    check_number(op, inputs, "alpha", 1.702, above=-math.inf)
    check_number(op, inputs, "offset", 1.0, above=-math.inf)


def _check_gated_mlp(op: str, inputs: dict[str, Any]) -> None:
    x = checked_tensor(op, inputs, "x", 2)
    gate, up, down = (checked_tensor(op, inputs, name, 2) for name in ("gate", "up", "down"))
    if gate.shape != up.shape or gate.shape[-2] != x.shape[-1] or down.shape[-2] != gate.shape[-1]:
        raise mismatch(op, inputs, "x", "gate", "up", "down")
    for name in ("gate", "up", "down"):
        bias = f"{name}_bias"
        if (
            inputs[bias] is not None
            and checked_tensor(op, inputs, bias).shape != inputs[name].shape[-1:]
        ):
            raise mismatch(op, inputs, name, bias)
    _check_activation(op, inputs)


def _check_activation(op: str, inputs: dict[str, Any]) -> None:
    inputs["activation"] = inputs["activation"] or "silu"
    if inputs["activation"] not in ("silu", "gelu_tanh"):
        raise InputsError(f"{op}: activation={inputs['activation']!r}: use 'silu' or 'gelu_tanh'")


def _ordinary(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.normal(8, 320)}


def _subnormal(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.tiny}


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


_AXES = Axes({"x": "md"}, "md", "md", "")


SILU = Operation(
    name="silu",
    arguments=("x",),
    cast_points=("sigmoid", "output"),
    check=check_x,
    program=program.silu,
    real=real.silu,
    bound=bound.silu_bound,
    spread=bound.silu_spread,
    axes=_AXES,
    native=Native(),
    ordinary=_ordinary,
    separating={"flush_to_zero": _subnormal},
    drawings=_drawings,
)

SWIGLU = Operation(
    name="swiglu",
    arguments=("gate", "up"),
    optional=("activation",),
    cast_points=("activated", "output"),
    check=_check_swiglu,
    program=program.swiglu,
    real=real.swiglu,
    bound=bound.swiglu_bound,
    spread=bound.swiglu_spread,
    axes=Axes({"gate": "md", "up": "md"}, "md", "md", ""),
    scalings=(Scaling({"up": 1}, 1),),
    native=Native(),
    eager=Eager(casts=("activated",)),
    ordinary=lambda draw: {"gate": draw.normal(8, 320), "up": draw.normal(8, 320)},
    separating={
        "flush_to_zero": lambda draw: {"gate": draw.full((1,), 1.0), "up": draw.tiny},
        "other_overflow": lambda draw: {"gate": draw.full((1,), 4.0), "up": draw.largest},
    },
    drawings=_drawings,
)

GELU = Operation(
    name="gelu",
    arguments=("x",),
    optional=("approximate",),
    cast_points=("distribution", "output"),
    check=_check_gelu,
    program=program.gelu,
    real=real.gelu,
    bound=bound.gelu_bound,
    spread=bound.gelu_spread,
    axes=_AXES,
    native=Native(),
    # torch takes erf from Abramowitz & Stegun 7.1.26: 6 ULP of 1 off for x in [2, 4).
    eager=Eager(function_ulp=8.0, flushes=True),
    ordinary=_ordinary,
    separating={"flush_to_zero": _subnormal},
    drawings=_drawings,
)


def _past_the_limit(draw: SeededDraw) -> dict[str, Any]:
    both = draw.stored(torch.tensor([-9.0, 9.0, 1.0], dtype=torch.float64))
    return {"gate": both, "up": both.flip(0)}


def _overflowing(draw: SeededDraw) -> dict[str, Any]:
    large = draw.full((1,), 400.0)
    return {"gate": large, "up": large, "limit": 1000.0}


CLAMPED_SWIGLU = Operation(
    name="clamped_swiglu",
    arguments=("gate", "up"),
    optional=("limit", "alpha", "offset"),
    cast_points=("scaled", "sigmoid", "activated", "shifted", "output"),
    check=_check_clamped_swiglu,
    program=program.clamped_swiglu,
    real=real.clamped_swiglu,
    bound=bound.clamped_swiglu_bound,
    spread=bound.clamped_swiglu_spread,
    axes=Axes({"gate": "md", "up": "md"}, "md", "md", ""),
    eager=Eager(casts=("scaled", "sigmoid", "activated", "shifted")),
    wrong=(
        WrongFormula("offset_dropped", "leaves out the offset", wrong.without_offset),
        WrongFormula("limit_ignored", "clamps nothing", wrong.without_limit),
        WrongFormula(
            "gate_clamped_below", "clamps the gate on both sides", wrong.gate_clamped_below
        ),
    ),
    ordinary=lambda draw: {"gate": draw.normal(8, 320), "up": draw.normal(8, 320)},
    separating={
        "flush_to_zero": lambda draw: {
            "gate": draw.full((1,), 1.0), "up": draw.tiny, "offset": 0.0
        },
        "other_overflow": _overflowing,
        "limit_ignored": _past_the_limit,
        "gate_clamped_below": _past_the_limit,
    },
    drawings=_drawings,
)  # fmt: skip
OPERATIONS = (SILU, SWIGLU, CLAMPED_SWIGLU, GELU)

_MLP_AXES = {
    "x": "md", "gate": "di", "gate_bias": "i", "up": "di", "up_bias": "i", "down": "in",
    "down_bias": "n",
}  # fmt: skip
UNITS = (
    Operation(
        name="gated_mlp",
        arguments=("x", "gate", "up", "down"),
        optional=("activation", "gate_bias", "up_bias", "down_bias"),
        cast_points=("hidden", "activated", "product", "output"),
        reduces=True,
        check=_check_gated_mlp,
        program=program.gated_mlp,
        axes=Axes(_MLP_AXES, "mn", "mn", "di"),
    ),
)
"""Judged as a whole; nothing is drawn for them or stated of their parts."""
