"""Draws the inputs of norms."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import ROWS, Drawing, Formats, inner_length, operand_beside, span_within
from ...strategies.fills import Constant
from ...strategies.operands import KINDS
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
    inputs["bias"] = Recipe((d,), fmt.name, Constant(0.0)) if kind == "subnormals" else draw(bias)
    return inputs | {"eps": draw(_EPS)}


def _vectors(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """x and the weight."""
    fmt = formats.storage
    rows, d = draw(ROWS), inner_length(draw, kind, max_size)
    span = span_within((-4, 1), fmt, (formats.compute.max_exponent - 10) // 2)
    if kind == "small_numbers":  # whose mean square is about eps
        low = max(-14, fmt.min_exponent)
        x = draw(random_tensors((rows, d), fmt, exponents=(low, max(-8, low))))
    else:
        x = draw(KINDS[kind]((rows, d), fmt, span))
    return {"x": x, "weight": draw(operand_beside(kind, (d,), fmt, (-2, 1)))}


_EPS = st.sampled_from([1e-6, 1e-5, 0.0, 1e-12, 0.25])

DRAWINGS = {
    "rms_norm": Drawing(_rms_norm, ("stagnating_sums", "small_numbers")),
    "layer_norm": Drawing(_layer_norm, ("small_numbers",)),
}
