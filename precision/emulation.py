"""One output in a contract's formats, correct or with a fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .arithmetic.emulation import Emulation, Execution
from .contract import PrecisionContract
from .operations import operation_called, validate_inputs

if TYPE_CHECKING:
    from .faults import Fault


def emulate(
    inputs: Mapping[str, Any], contract: PrecisionContract, fault: Fault | None = None
) -> torch.Tensor:
    """`contract.op` computed step by step in the contract's formats.

    With a fault, in the formats that the fault makes of them. Returns the dtype of the output
    format (fp32 for TF32, which torch lacks). Raises InputsError, and ValueError for a fault that
    does not apply to the contract.
    """
    prepared = validate_inputs(contract.op, inputs)
    execution, formula = Execution.of(contract), operation_called(contract.op).program
    if fault is not None:
        execution, formula = fault.bend(contract, execution), fault.formula(contract.op)
    result: torch.Tensor = formula(Emulation.of(execution), prepared)
    return result.to(execution.output.dtype or torch.float32)
