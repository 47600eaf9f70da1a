"""Convolutions as implementations have got them wrong, each right but for one thing."""

from __future__ import annotations

from typing import Any

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def centred(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The padding divided between both ends, as of a convolution that is not causal
    (paarthneekhara/byteNet-tensorflow#5)."""
    total = sum(inputs["padding"])
    return program.conv1d(ar, {**inputs, "padding": (total // 2, total - total // 2)})


def flipped(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The filters turned about, as mathematics has a convolution and no framework does."""
    return program.conv1d(ar, {**inputs, "weight": inputs["weight"].flip(-1)})
