"""Draws the inputs of gates."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import (
    ROWS,
    Drawing,
    Formats,
    gate_span,
    inner_length,
    operand_beside,
    unary_inputs,
)
from ...strategies.operands import KINDS


def _gelu(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    inputs = unary_inputs(draw, formats, kind, max_size)
    return inputs | {"approximate": draw(st.sampled_from(["tanh", "none"]))}


def _swiglu(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    fmt = formats.storage
    shape = (draw(ROWS), inner_length(draw, kind, min(max_size, 65)))
    return {
        "gate": draw(KINDS[kind](shape, fmt, gate_span(fmt))),
        "up": draw(operand_beside(kind, shape, fmt, (-3, 3))),
        "activation": draw(st.sampled_from(["silu", "gelu_tanh"])),
    }


DRAWINGS = {
    "silu": Drawing(unary_inputs),
    "swiglu": Drawing(_swiglu),
    "gelu": Drawing(_gelu),
}
