"""The records of RMSNorm, LayerNorm and GroupNorm, with their checks and seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import InputsError, check_number, checked_tensor, mismatch
from ..operation import Axes, Eager, Native, Operation, Scaling, Seeded, WrongFormula
from ..seeded import SeededDraw
from . import bound, program, real, wrong

if TYPE_CHECKING:
    from ...strategies.drawing import Drawing

Tensor = torch.Tensor


def _check(op: str, inputs: dict[str, Any], vectors: tuple[str, ...], eps: float) -> None:
    x = checked_tensor(op, inputs, "x")
    _check_vectors(op, inputs, vectors, x.shape[-1])
    check_number(op, inputs, "eps", eps, above=0.0)


def _check_vectors(op: str, inputs: dict[str, Any], names: tuple[str, ...], n: int) -> None:
    for name in names:
        if inputs[name] is not None and checked_tensor(op, inputs, name).shape != (n,):
            raise mismatch(op, inputs, "x", name)


def _check_groups(op: str, inputs: dict[str, Any]) -> None:
    x, groups = checked_tensor(op, inputs, "x", 2), inputs["groups"]
    if not isinstance(groups, int) or groups < 1 or x.shape[1] % groups or not x[0].numel():
        raise InputsError(f"{op}: groups={groups!r} must divide {x.shape[1]} channels")
    _check_vectors(op, inputs, ("weight", "bias"), x.shape[1])
    check_number(op, inputs, "eps", 1e-5, above=0.0)


def _ordinary(draw: SeededDraw, *vectors: str) -> dict[str, Any]:
    inputs = {"x": draw.normal(8, 320)}
    return inputs | {name: draw.normal(320) for name in vectors}


def _vanishing_terms(draw: SeededDraw) -> dict[str, Any]:
    n = 2048
    x = math.sqrt(0.9 * draw.accumulate.unit_roundoff) * (0.6 + 0.4 * draw.uniform(1, 2 * n))
    x[0, ::2] *= -1
    x[0, :2] = torch.tensor([1.0, -1.0])
    return {"x": draw.stored(x), "weight": draw.normal(2 * n)}


def _overflowing(draw: SeededDraw) -> dict[str, Any]:
    pulse = torch.zeros(1, 16, dtype=torch.float64)
    pulse[0, 0] = 2.0
    return {"x": draw.stored(pulse), "weight": draw.full((16,), draw.format.largest)}


def _without_bias(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs | {"bias": torch.zeros_like(inputs["weight"])}


def _subnormal_rms(draw: SeededDraw) -> dict[str, Any]:
    return {"x": draw.full((1,), 1.0)[None], "weight": draw.tiny}


def _subnormal_layer(draw: SeededDraw) -> dict[str, Any]:
    one = draw.full((1,), 1.0)
    return {"x": torch.cat([one, -one])[None], "weight": torch.cat([draw.tiny, draw.tiny])}


def _offset_rows(draw: SeededDraw) -> dict[str, Any]:
    """A large mean, and a step of 1 from it: the sums are exact, those of squares are not."""
    n, mean = 1024, min(2.0**13, 2.0 ** (draw.format.precision - 1))
    rows = torch.full((4, n), mean, dtype=torch.float64)
    rows[:, 0] += 1
    return {"x": draw.stored(rows), "weight": draw.normal(n), "bias": draw.normal(n)}


def _small_variance(draw: SeededDraw) -> dict[str, Any]:
    n = 64
    x = draw.stored(torch.randn(8, n, generator=draw.generator, dtype=torch.float64) * 2.0**-11)
    return {"x": x, "weight": draw.normal(n), "bias": draw.full((n,), 0.0), "eps": 1e-8}


_AXES = Axes({"x": "md", "weight": "d", "bias": "d"}, "md", "m", "d")


def _drawings() -> Mapping[str, Drawing]:
    from .draws import DRAWINGS

    return DRAWINGS


RMS_NORM = Operation(
    name="rms_norm",
    arguments=("x",),
    optional=("weight", "eps"),
    cast_points=("scale", "normalized", "output"),
    statistics=("scale",),
    reduces=True,
    fuses=True,
    check=partial(_check, vectors=("weight",), eps=1e-6),
    program=program.rms_norm,
    real=real.rms_norm,
    bound=bound.rms_norm_bound,
    spread=bound.rms_norm_spread,
    axes=_AXES,
    scalings=(Scaling({"x": 1, "eps": 2}, 0), Scaling({"weight": 1}, 1)),
    native=Native(order="blocked:256"),
    eager=Eager(casts=("normalized",)),
    ordinary=lambda draw: _ordinary(draw, "weight"),
    separating={
        "flush_to_zero": _subnormal_rms,
        "reordered_reduction": _vanishing_terms,
        "other_overflow": _overflowing,
    },
    drawings=_drawings,
)

LAYER_NORM = Operation(
    name="layer_norm",
    arguments=("x",),
    optional=("weight", "bias", "eps"),
    cast_points=("scale", "normalized", "output"),
    statistics=("scale",),
    reduces=True,
    fuses=True,
    check=partial(_check, vectors=("weight", "bias"), eps=1e-5),
    program=program.layer_norm,
    real=real.layer_norm,
    bound=bound.layer_norm_bound,
    spread=bound.layer_norm_spread,
    axes=_AXES,
    scalings=(Scaling({"x": 1, "eps": 2}, 0), Scaling({"weight": 1, "bias": 1}, 1)),
    native=Native(),
    wrong=(
        WrongFormula(
            "variance_from_squares",
            "takes the variance as E[x^2] - E[x]^2",
            wrong.layer_norm_from_squares,
        ),
        WrongFormula(
            "small_variance_dropped",
            "takes a variance below 1e-6 as 0",
            wrong.layer_norm_without_small_variance,
        ),
    ),
    ordinary=lambda draw: _ordinary(draw, "weight", "bias"),
    separating={
        "flush_to_zero": lambda draw: _without_bias(_subnormal_layer(draw)),
        "reordered_reduction": lambda draw: _without_bias(_vanishing_terms(draw)),
        "other_overflow": lambda draw: _without_bias(_overflowing(draw)),
        "variance_from_squares": _offset_rows,
        "small_variance_dropped": _small_variance,
    },
    drawings=_drawings,
)


def _one_group(rows: Seeded) -> Seeded:
    """Positions for features, one channel, and so no vectors: they would each be one number."""

    def seeded(draw: SeededDraw) -> dict[str, Any]:
        inputs = rows(draw)
        x = inputs["x"]
        return {"x": x[:, None], "groups": 1} | ({"eps": inputs["eps"]} if "eps" in inputs else {})

    return seeded


def _group_of(draw: SeededDraw, *numbers: float, weight: Tensor) -> dict[str, Any]:
    """One row of one channel."""
    x = draw.stored(torch.tensor(numbers, dtype=torch.float64))
    return {"x": x[None, None], "groups": 1, "weight": weight}


def _grouped(draw: SeededDraw) -> dict[str, Any]:
    return {
        "x": draw.normal(4, 6, 40),
        "groups": 3,
        "weight": draw.normal(6),
        "bias": draw.normal(6),
    }


GROUP_NORM = Operation(
    name="group_norm",
    arguments=("x", "groups"),
    optional=("weight", "bias", "eps"),
    cast_points=("scale", "normalized", "output"),
    statistics=("scale",),
    reduces=True,
    fuses=True,
    check=_check_groups,
    program=program.group_norm,
    real=real.group_norm,
    bound=bound.group_norm_bound,
    spread=bound.group_norm_spread,
    axes=Axes({"x": "mcs", "weight": "c", "bias": "c"}, "mcs", "m", "s"),
    scalings=(Scaling({"x": 1, "eps": 2}, 0), Scaling({"weight": 1, "bias": 1}, 1)),
    wrong=(
        WrongFormula(
            "variance_from_squares",
            "takes the variance as E[x^2] - E[x]^2",
            wrong.group_norm_from_squares,
        ),
    ),
    ordinary=_grouped,
    separating={
        "flush_to_zero": lambda draw: _group_of(draw, 1.0, -1.0, weight=draw.tiny),
        "reordered_reduction": _one_group(_vanishing_terms),
        "other_overflow": lambda draw: _group_of(
            draw, 2.0, *[0.0] * 15, weight=draw.largest
        ),
        "variance_from_squares": _one_group(_offset_rows),
    },
    drawings=_drawings,
)  # fmt: skip
OPERATIONS = (RMS_NORM, LAYER_NORM, GROUP_NORM)
