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


def _clamped_swiglu(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """Limits, slopes and offsets of gpt-oss's, of a plain gate's, and others."""
    inputs = _swiglu(draw, formats, kind, max_size)
    del inputs["activation"]
    if draw(st.booleans()):
        inputs["limit"] = draw(st.sampled_from([7.0, 0.5, 20.3]))
    if draw(st.booleans()):
        inputs["alpha"] = draw(st.sampled_from([1.0, 1.702, 0.0, -1.0]))
    if draw(st.booleans()):
        inputs["offset"] = draw(st.sampled_from([0.0, 1.0, -0.3]))
    return inputs


DRAWINGS = {
    "silu": Drawing(unary_inputs),
    "swiglu": Drawing(_swiglu),
    "clamped_swiglu": Drawing(_clamped_swiglu),
    "gelu": Drawing(_gelu),
}
