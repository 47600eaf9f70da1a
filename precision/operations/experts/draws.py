"""Draws scores of experts, and how many are chosen."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import Drawing, Formats, operand_beside
from ...strategies.operands import LISTED
from ..softmax.draws import logits


def _moe_gate(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    x = logits(draw, formats, kind, min(max_size, 65))["x"]
    inputs: dict[str, Any] = {"x": x, "k": draw(st.integers(1, min(4, x.shape[-1])))}
    if draw(st.booleans()):
        inputs["score"] = "sigmoid"
    if draw(st.booleans()):
        inputs["renormalize"] = True
    if draw(st.booleans()):
        inputs["factor"] = draw(st.sampled_from([2.5, 1.0, -0.3]))
    beside = "extremes" if kind in LISTED else kind
    inputs["bias"] = draw(operand_beside(beside, x.shape[-1:], formats.storage, (-4, 0)))
    return inputs


DRAWINGS = {"moe_gate": Drawing(_moe_gate, ("vanishing_probabilities",), sometimes=("bias",))}
