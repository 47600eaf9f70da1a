"""Bound and condition of rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...arithmetic.rounding_model import RoundingModel
from ...reals.fp64 import Fp64
from .real import rope

Tensor = torch.Tensor


def rope_bound(
    model: RoundingModel,
    y: Tensor,
    x: Tensor,
    positions: Tensor | None,
    theta: float | None,
    inv_freq: tuple[float, ...] | None,
    attention_factor: float | None,
    cos: Tensor | None,
    sin: Tensor | None,
) -> Tensor:
    """Each output is a sum of two products: errors are relative to |x1 c| + |x2 s|."""
    half = x.shape[-1] // 2
    first, second = x.double()[..., :half].abs(), x.double()[..., half:].abs()
    if cos is None or sin is None:
        assert positions is not None, "checked inputs have positions or tables"
        angle, angle_error = _angle(model, half, positions, theta, inv_freq)
        factor = 1.0 if attention_factor is None else attention_factor
        (c, c_error), (s, s_error) = _tables(model, angle, angle_error, factor)
    else:
        c, s = cos.double().abs(), sin.double().abs()
        c_error = model.cast("tables", c, torch.zeros_like(c))
        s_error = model.cast("tables", s, torch.zeros_like(s))
    low = _product(model, first, c, c_error) + _product(model, second, s, s_error)
    high = _product(model, second, c, c_error) + _product(model, first, s, s_error)
    error = torch.cat([low, high], -1)
    error = error + model.steps(1) * (y.abs() + error)
    return model.cast("output", y, error + model.underflow)


def _angle(
    model: RoundingModel,
    half: int,
    positions: Tensor,
    theta: float | None,
    inv_freq: tuple[float, ...] | None,
) -> tuple[Tensor, Tensor]:
    """Angles with their errors, which are in proportion to them: in fp32, at position 200,000,
    0.01 rad."""
    angles = model.in_angles()
    position = positions.double()[..., None]
    if inv_freq is not None:
        angle = position * torch.tensor(inv_freq, dtype=torch.float64)
        return angle, angle * angles.steps(3) + angles.underflow
    assert theta is not None
    fraction = torch.arange(half, dtype=torch.float64) / half
    angle = position * theta**-fraction
    exponent = (angles.steps(6) + angles.function) * fraction * math.log(theta)
    relative = exponent.exp() * (1 + angles.function) * (1 + angles.steps(5)) - 1
    return angle, angle * relative


def _tables(
    model: RoundingModel, angle: Tensor, angle_error: Tensor, factor: float
) -> list[tuple[Tensor, Tensor]]:
    """|cos| and |sin|, times the factor, with their errors."""
    angles = model.in_angles()
    tables = []
    for table in (angle.cos().abs(), angle.sin().abs()):
        error = angle_error.clamp(max=2.0) + angles.function * (table + angle_error)
        error = error.clamp(max=2.0) + angles.underflow
        if factor != 1.0:
            table, error = factor * table, factor * error
            error = error + angles.steps(2) * (table + error) + angles.underflow
        error = error + model.steps(1) * (table + error) + model.underflow
        tables.append((table, model.cast("tables", table, error)))
    return tables


def _product(model: RoundingModel, x: Tensor, table: Tensor, table_error: Tensor) -> Tensor:
    error = x * table_error + model.flushed(x)
    error = error + model.steps(1) * (x * table + error) + model.underflow
    return model.cast("products", x * table, error)


def rope_spread(y: Tensor, x: Tensor, **tables: Any) -> Tensor:
    """|x1 c| + |x2 s|; the rotation of (|x1|, 0) and of (|x2|, 0) brings out |c| and |s|."""
    half = x.shape[-1] // 2
    first, second = x.double()[..., :half].abs(), x.double()[..., half:].abs()
    ones = torch.cat([torch.ones_like(first), torch.zeros_like(second)], -1)
    turned: Tensor = rope(Fp64(), ones, **tables).abs()
    c, s = turned[..., :half], turned[..., half:]
    return torch.cat([first * c + second * s, second * c + first * s], -1)
