"""Inputs on which a fault leaves its contract: where a search may start, and often end.

Most faults show on ordinary numbers. Flushed subnormals need results below the smallest normal; a
sum in another order needs terms that vanish one by one beside a large partial sum but not together
(Higham 2002, section 4.3).
"""

from __future__ import annotations

from typing import Any

import torch

from .contract import PrecisionContract
from .formats import FORMATS
from .operations import OPERATIONS
from .operations.seeded import SeededDraw


def separating_inputs(contract: PrecisionContract, fault: str, seed: int = 0) -> dict[str, Any]:
    """Inputs for `contract.op`, in its storage format, chosen against the fault of that name.

    Deterministic in `seed`. On them the faults that the contract can distinguish show, if its sums
    are in fp32 (narrower ones drown a reordering in their own error).
    """
    operation, generator = OPERATIONS[contract.op], torch.Generator().manual_seed(seed)
    draw = SeededDraw(FORMATS[contract.storage], FORMATS[contract.accumulate], generator)
    return operation.separating.get(fault, operation.ordinary)(draw)
