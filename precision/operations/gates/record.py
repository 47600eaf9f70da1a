"""The records of SiLU, GELU and their gates, with their checks and seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, check_x, checked_tensor, mismatch
from ..operation import Axes, Eager, Operation, Scaling
from ..seeded import SeededDraw
from . import program, real
from .bound import gelu_bound, gelu_spread, silu_bound, silu_spread, swiglu_bound, swiglu_spread

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
    bound=silu_bound,
    spread=silu_spread,
    axes=_AXES,
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
    bound=swiglu_bound,
    spread=swiglu_spread,
    axes=Axes({"gate": "md", "up": "md"}, "md", "md", ""),
    scalings=(Scaling({"up": 1}, 1),),
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
    bound=gelu_bound,
    spread=gelu_spread,
    axes=_AXES,
    # torch takes erf from Abramowitz & Stegun 7.1.26: 6 ULP of 1 off for x in [2, 4).
    eager=Eager(function_ulp=8.0, flushes=True),
    ordinary=_ordinary,
    separating={"flush_to_zero": _subnormal},
    drawings=_drawings,
)
OPERATIONS = (SILU, SWIGLU, GELU)

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
