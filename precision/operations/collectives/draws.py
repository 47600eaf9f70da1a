"""Draws what ranks hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import Drawing, Formats, inner_length, many_terms, span_within
from ...strategies.operands import KINDS
from ...strategies.sums import stagnating_terms


def _rank_sum(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """Elements by ranks: few elements, or many chunks of a ring; few ranks, or many."""
    fmt = formats.storage
    if kind == "stagnating_sums":
        many = many_terms(draw, max_size)
        return {"x": stagnating_terms((2, many), 1, fmt, formats.accumulate)}
    shape = (draw(st.sampled_from([1, 2, 3])), inner_length(draw, kind, min(max_size, 65)))
    reach = max(1, (fmt.max_exponent - 10) // 2)
    inputs: dict[str, Any] = {"x": draw(KINDS[kind](shape, fmt, span_within((-4, 1), fmt, reach)))}
    if draw(st.booleans()):
        inputs["average"] = True
    if draw(st.booleans()):
        inputs["ring"] = shape[1]
    return inputs


DRAWINGS = {"rank_sum": Drawing(_rank_sum, ("stagnating_sums",))}
