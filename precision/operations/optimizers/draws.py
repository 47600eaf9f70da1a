"""Draws parameters, gradients and moments."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import ROWS, Drawing, Formats, inner_length, operand_beside, span_within
from ...strategies.operands import KINDS, LISTED
from ...strategies.tensors import listed_tensors, random_tensors


def _adam_step(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """Moments of the size of gradients, and both zero before the first step."""
    fmt = formats.storage
    shape = (draw(ROWS), inner_length(draw, kind, min(max_size, 65)))
    span = span_within((-4, 1), fmt, max(1, (fmt.max_exponent - 10) // 3))
    second = random_tensors(shape, fmt, exponents=(max(-12, fmt.min_exponent), 1), signed=False)
    if kind in LISTED:
        ends = st.sampled_from([0.0, -0.0, 1.0, fmt.largest, fmt.smallest_subnormal])
        second = listed_tensors(shape, fmt, elements=ends)
    inputs: dict[str, Any] = {
        "parameter": draw(operand_beside(kind, shape, fmt, (-4, 1))),
        "gradient": draw(KINDS[kind](shape, fmt, span)),
        "first": draw(operand_beside(kind, shape, fmt, (-4, 1))),
        "second": draw(second),
        "step": draw(st.sampled_from([1, 2, 10, 1000])),
    }
    if draw(st.booleans()):
        inputs["decay"] = draw(st.sampled_from([0.01, 0.1, 0.0]))
    if draw(st.booleans()):
        inputs["decoupled"] = draw(st.booleans())
    if draw(st.booleans()):
        inputs["result"] = draw(st.sampled_from(["parameter", "first", "second"]))
    options = {"rate": [1e-3, 0.1, 1.0], "eps": [1e-8, 1e-15, 0.1]}
    options |= {"beta1": [0.9, 0.0, 0.99], "beta2": [0.999, 0.0, 0.95]}
    for name, values in options.items():
        if draw(st.booleans()):
            inputs[name] = draw(st.sampled_from(values))
    return inputs


DRAWINGS = {"adam_step": Drawing(_adam_step)}
