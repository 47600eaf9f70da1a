"""The eleven operations: arguments, cast points and program of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import programs
from .arithmetic.interface import Arithmetic
from .inputs import Inputs, InputsError, prepare

__all__ = ["OPERATIONS", "Inputs", "InputsError", "Operation", "validate_inputs"]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        arguments: Names that `inputs` must have.
        optional: Names it may have.
        cast_points: Where a contract may declare a rounding to storage.
        statistics: Those cast points that are one number a row.
        program: Its formula, over any `Arithmetic`.
        reduces: Whether it sums, so that an order means something.
    """

    name: str
    arguments: tuple[str, ...]
    optional: tuple[str, ...]
    cast_points: tuple[str, ...]
    statistics: tuple[str, ...]
    program: Callable[[Arithmetic[Any], Inputs], Any]
    reduces: bool


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "matmul",
            ("a", "b"),
            ("bias",),
            ("inputs", "product", "output"),
            (),
            programs.matmul,
            True,
        ),
        Operation(
            "rms_norm",
            ("x", "weight"),
            ("eps",),
            ("scale", "normalized", "output"),
            ("scale",),
            programs.rms_norm,
            True,
        ),
        Operation(
            "layer_norm",
            ("x", "weight", "bias"),
            ("eps",),
            ("scale", "normalized", "output"),
            ("scale",),
            programs.layer_norm,
            True,
        ),
        Operation(
            "softmax",
            ("x",),
            (),
            ("exponentials", "sum", "output"),
            ("sum",),
            programs.softmax,
            True,
        ),
        Operation(
            "logsumexp",
            ("x",),
            (),
            ("exponentials", "sum", "output"),
            ("sum",),
            programs.logsumexp,
            True,
        ),
        Operation(
            "attention",
            ("q", "k", "v"),
            ("scale", "causal", "window", "past", "cap"),
            ("inputs", "scores", "scaled", "exponentials", "probabilities", "output"),
            (),
            programs.attention,
            True,
        ),
        Operation(
            "soft_cap",
            ("x", "cap"),
            (),
            ("quotient", "tanh", "output"),
            (),
            programs.soft_cap,
            False,
        ),
        Operation(
            "rope",
            ("x",),
            ("positions", "theta", "inv_freq", "attention_factor", "cos", "sin"),
            ("tables", "products", "output"),
            (),
            programs.rope,
            False,
        ),
        Operation("silu", ("x",), (), ("sigmoid", "output"), (), programs.silu, False),
        Operation(
            "swiglu",
            ("gate", "up"),
            ("activation",),
            ("activated", "output"),
            (),
            programs.swiglu,
            False,
        ),
        Operation(
            "gelu",
            ("x",),
            ("approximate",),
            ("distribution", "output"),
            (),
            programs.gelu,
            False,
        ),
    )
}


UNITS: dict[str, Operation] = {
    "gated_mlp": Operation(
        "gated_mlp",
        ("x", "gate", "up", "down"),
        ("activation", "gate_bias", "up_bias", "down_bias"),
        ("hidden", "activated", "product", "output"),
        (),
        programs.gated_mlp,
        True,
    )
}
"""Operations that somebody fused into one, of which only the whole can be seen: judged, but neither
drawn inputs for nor given closed bounds."""


def operation_called(name: str) -> Operation:
    """Returns one of `OPERATIONS` or of `UNITS`. Raises KeyError."""
    return UNITS[name] if name in UNITS else OPERATIONS[name]


def validate_inputs(op: str, inputs: Inputs) -> dict[str, Any]:
    """The inputs with tensors on the CPU, detached, and defaults filled in.

    Raises InputsError (a ValueError) naming the argument: unknown or missing names, shapes that do
    not fit, dtypes that are no float, non-finite numbers (softmax and logsumexp allow -inf).
    """
    if op not in OPERATIONS | UNITS:
        raise InputsError(f"op {op!r}: known are {', '.join(OPERATIONS | UNITS)}")
    known = operation_called(op)
    return prepare(op, known.arguments, known.optional, inputs)
