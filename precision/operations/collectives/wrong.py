"""A mean over ranks as implementations have got it wrong."""

from __future__ import annotations

from typing import Any

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def without_average(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The sum where the mean is asked for."""
    return program.rank_sum(ar, {**inputs, "average": False})
