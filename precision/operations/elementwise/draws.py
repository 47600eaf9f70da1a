"""Draws the operands of sums, products and functions."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import (
    ROWS,
    Drawing,
    Formats,
    inner_length,
    operand_beside,
    span_within,
    unary_inputs,
)
from ...strategies.fills import Steps
from ...strategies.operands import KINDS
from ...strategies.recipe import Recipe


def _operands(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """b of a's shape, or one row of it for all, or one number."""
    fmt = formats.storage
    shape = (draw(ROWS), inner_length(draw, kind, min(max_size, 65)))
    span = span_within((-4, 4), fmt, max(1, (fmt.max_exponent - 2) // 2))
    other = draw(st.sampled_from([shape, shape[1:], (1,)]))
    return {
        "a": draw(KINDS[kind](shape, fmt, span)),
        "b": draw(operand_beside(kind, other, fmt, (-4, 1))),
    }


def _sigmoid(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    if kind == "vanishing_probabilities":  # the first is subnormal before its inverse overflows
        first = math.floor(formats.storage.min_exponent * math.log(2))
        return {"x": Recipe((draw(st.integers(1, 12)),), formats.storage.name, Steps(first, -1))}
    return unary_inputs(draw, formats, kind, max_size)


DRAWINGS = {
    "add": Drawing(_operands),
    "mul": Drawing(_operands),
    "sigmoid": Drawing(_sigmoid, ("vanishing_probabilities",)),
    "tanh": Drawing(unary_inputs),
}
