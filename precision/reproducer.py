"""A violation as a script that stands on its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from .contract import PrecisionContract
from .search import Violation
from .strategies.drawn import DrawnInputs

SHOWN = 64
"""Outputs of more elements than this are not spelled out."""

_NAMES = (
    "Constant", "DotFactor", "DrawnInputs", "Edit", "Integers", "Listed", "Near", "Random",
    "Recipe", "Steps", "Ties",
)  # fmt: skip


def reproducer(violation: Violation, contract: PrecisionContract) -> str:
    """Python source that rebuilds the inputs, bit for bit, and judges the output again."""
    inputs, actual = violation.inputs, violation.actual
    shown = repr(inputs) if isinstance(inputs, DrawnInputs) else _plain(inputs)
    names = [name for name in _NAMES if f"{name}(" in shown]
    values = actual.flatten().tolist() if actual.numel() <= SHOWN else []
    lines = ["import torch"]
    if not all(map(math.isfinite, values)) or "inf" in shown:
        lines += ["from math import inf, nan"]
    lines += ["from bitlens.precision.contract import PrecisionContract"]
    lines += ["from bitlens.precision.oracle import check"]
    if names:
        lines += [f"from bitlens.precision.strategies import {', '.join(names)}"]
    lines += ["", f"inputs = {shown}", f"contract = {contract_code(contract)}"]
    if values:
        lines += [f"actual = {_literal(actual)}  # what the implementation gave"]
    else:
        lines += [f"actual = implementation(**inputs)  # gave {list(actual.shape)} {actual.dtype}"]
    return "\n".join([*lines, "print(check(actual, inputs, contract))"])


def contract_code(contract: PrecisionContract) -> str:
    """The shortest call that makes this contract."""
    stated = [repr(contract.op)] + [
        f"{field.name}={getattr(contract, field.name)!r}"
        for field in dataclasses.fields(contract)
        if field.name != "op" and getattr(contract, field.name) != field.default
    ]
    return f"PrecisionContract({', '.join(stated)})"


def _plain(inputs: Mapping[str, Any]) -> str:
    """Inputs from a strategy of the user's own: tensors element by element."""
    items = (
        f"{name!r}: {_literal(value) if isinstance(value, torch.Tensor) else repr(value)}"
        for name, value in inputs.items()
    )
    return "{" + ", ".join(items) + "}"


def _literal(tensor: torch.Tensor) -> str:
    # repr of a Python float is exact for fp64 and everything narrower.
    return f"torch.tensor({tensor.tolist()!r}, dtype={tensor.dtype})"
