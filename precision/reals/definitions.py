"""The operations over the real numbers, by name.

Each is stated in its family's real.py, apart from the program that contracts judge by, so that the
two check each other. Inputs come by the names contracts use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..operations import OPERATIONS, validate_inputs
from .algebra import Algebra


def evaluate(over: Algebra, op: str, arguments: Mapping[str, Any]) -> Any:
    """`op` of `arguments_of(op, inputs)`."""
    return OPERATIONS[op].real(over, **arguments)


def arguments_of(op: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs checked (InputsError) and completed, less what another of them already says."""
    arguments = validate_inputs(op, inputs)
    for name in OPERATIONS[op].implied:
        del arguments[name]
    return arguments
