"""Every operation's record, from a folder per family, which the rest of precision/ reads."""

from __future__ import annotations

from typing import Any

import torch

from ..inputs import Inputs, InputsError
from .attention import fused_record as fused_attention
from .attention import record as attention
from .collectives import record as collectives
from .elementwise import record as elementwise
from .experts import record as experts
from .gates import record as gates
from .norms import record as norms
from .operation import Operation
from .optimizers import record as optimizers
from .products import record as products
from .quantisation import record as quantisation
from .rope import record as rope
from .softmax import record as softmax

__all__ = ["OPERATIONS", "UNITS", "Inputs", "InputsError", "Operation", "validate_inputs"]

Tensor = torch.Tensor

_FAMILIES = (
    products, norms, softmax, experts, attention, rope, gates, elementwise, quantisation,
    collectives, optimizers,
)  # fmt: skip
OPERATIONS: dict[str, Operation] = {
    operation.name: operation for family in _FAMILIES for operation in family.OPERATIONS
}
UNITS: dict[str, Operation] = {unit.name: unit for unit in gates.UNITS + fused_attention.UNITS}
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
    _check_names(known, inputs)
    names = known.arguments + known.optional
    prepared = {name: _plain(known, name, inputs.get(name)) for name in names}
    known.check(op, prepared)
    return prepared


def _check_names(operation: Operation, inputs: Inputs) -> None:
    arguments, optional = operation.arguments, operation.optional
    unknown = sorted(set(inputs) - set(arguments) - set(optional))
    missing = [name for name in arguments if inputs.get(name) is None]
    if unknown or missing:
        problem = f"unknown {', '.join(unknown)}" if unknown else f"missing {', '.join(missing)}"
        raise InputsError(
            f"{operation.name}: {problem}; it takes {', '.join(arguments)}"
            + (f" and optionally {', '.join(optional)}" if optional else "")
        )


def _plain(operation: Operation, name: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().to("cpu")
    if value.is_floating_point():
        values = value.to(torch.float64)  # torch has no isfinite for fp8
        allowed = values.isfinite()
        if operation.masked or name in operation.infinite:
            allowed |= values == -torch.inf
        if not bool(allowed.all()):
            where = [int(i) for i in (~allowed).nonzero()[0]]
            raise InputsError(
                f"{operation.name}: {name}{where} is {values[tuple(where)].item()}; references "
                "need finite inputs"
            )
    return value
