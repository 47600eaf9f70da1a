"""The clamped SwiGLU as implementations have got it wrong, each right but for one thing."""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def without_offset(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """gpt-oss's up loses its + 1 (sgl-project/sglang#39939)."""
    return program.clamped_swiglu(ar, {**inputs, "offset": 0.0})


def without_limit(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The kernel that is chosen knows no limit (sgl-project/sglang#31935)."""
    gate, up = ar.given(inputs["gate"]), ar.given(inputs["up"])
    return program.clamped_product(ar, gate, up, inputs)


def gate_clamped_below(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The gate is clamped on both sides, as the other factor is."""
    least = ar.neg(ar.constant(inputs["limit"]))
    gate = ar.shape(torch.maximum, ar.given(inputs["gate"]), least)
    limit = ar.constant(inputs["limit"])
    gate = ar.shape(torch.minimum, gate, limit)
    up = ar.shape(torch.maximum, ar.given(inputs["up"]), least)
    return program.clamped_product(ar, gate, ar.shape(torch.minimum, up, limit), inputs)
