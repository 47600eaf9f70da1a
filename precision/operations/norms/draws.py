"""Draws the inputs of norms."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...formats import Format
from ...strategies.drawing import ROWS, Drawing, Formats, inner_length, operand_beside, span_within
from ...strategies.fills import Constant
from ...strategies.operands import KINDS, LISTED
from ...strategies.recipe import Recipe
from ...strategies.sums import stagnating_norm
from ...strategies.tensors import random_tensors


def _rms_norm(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    if kind == "stagnating_sums":
        return draw(stagnating_norm(formats.storage, formats.accumulate))
    return _vectors(draw, formats, kind, max_size) | {"eps": draw(_EPS)}


def _layer_norm(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    inputs, fmt = _vectors(draw, formats, kind, max_size), formats.storage
    d = inputs["weight"].shape[0]
    bias = operand_beside(kind, (d,), fmt, (-4, 0))
    # A bias would hide that a subnormal got lost.
    inputs["bias"] = _zeros(d, fmt) if kind == "subnormals" else draw(bias)
    return inputs | {"eps": draw(_EPS)}


def _vectors(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """x and the weight."""
    rows, d = draw(ROWS), inner_length(draw, kind, max_size)
    x = _x(draw, formats, kind, (rows, d))
    return {"x": x, "weight": draw(operand_beside(kind, (d,), formats.storage, (-2, 1)))}


def _x(draw: st.DrawFn, formats: Formats, kind: str, shape: tuple[int, ...]) -> Recipe:
    fmt = formats.storage
    if kind == "small_numbers":  # whose mean square is about eps
        low = max(-14, fmt.min_exponent)
        return draw(random_tensors(shape, fmt, exponents=(low, max(-8, low))))
    span = span_within((-4, 1), fmt, (formats.compute.max_exponent - 10) // 2)
    return draw(KINDS[kind](shape, fmt, span))


def _group_norm(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """x [rows, channels, positions] in one group of all channels, in groups of one, or between."""
    fmt = formats.storage
    channels = draw(st.sampled_from([1, 2, 6]))
    groups = draw(st.sampled_from([g for g in (1, 2, 6) if channels % g == 0]))
    positions = inner_length(draw, kind, min(max_size, 65))
    beside = "extremes" if kind in LISTED else kind
    bias = operand_beside(beside, (channels,), fmt, (-4, 0))
    return {
        "x": _x(draw, formats, kind, (draw(st.sampled_from([1, 2])), channels, positions)),
        "groups": groups,
        "weight": draw(operand_beside(beside, (channels,), fmt, (-2, 1))),
        "bias": _zeros(channels, fmt) if kind == "subnormals" else draw(bias),
        "eps": draw(_EPS),
    }


def _zeros(n: int, fmt: Format) -> Recipe:
    return Recipe((n,), fmt.name, Constant(0.0))


_EPS = st.sampled_from([1e-6, 1e-5, 0.0, 1e-12, 0.25])

DRAWINGS = {
    "rms_norm": Drawing(_rms_norm, ("stagnating_sums", "small_numbers"), sometimes=("weight",)),
    "layer_norm": Drawing(_layer_norm, ("small_numbers",), sometimes=("weight", "bias")),
    "group_norm": Drawing(_group_norm, ("small_numbers",), sometimes=("weight", "bias")),
}
