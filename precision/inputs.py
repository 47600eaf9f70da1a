"""Checks that the inputs of several operations share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

Tensor = torch.Tensor
Inputs = Mapping[str, Any]


class InputsError(ValueError):
    """Inputs that an operation cannot take."""


def checked_tensor(op: str, inputs: Inputs, name: str, dims: int = 1) -> Tensor:
    """Returns the tensor of that name. Raises InputsError for anything else, or too few axes."""
    value = inputs[name]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputsError(f"{op}: {name} must be a floating-point tensor, got {got}")
    if value.ndim < dims or value.shape[-1] == 0:
        raise InputsError(
            f"{op}: {name} has shape {list(value.shape)}; it needs at least {dims} axes and a last "
            "axis that is not empty"
        )
    return value


def check_number(
    op: str, inputs: dict[str, Any], name: str, default: float, *, above: float
) -> None:
    """Puts a finite float from `above` up in its place, by default `default`."""
    value = default if inputs[name] is None else inputs[name]
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value) or value < above:
        raise InputsError(f"{op}: {name}={value!r} must be a finite number from {above} up")
    inputs[name] = float(value)


def mismatch(op: str, inputs: Inputs, *names: str) -> InputsError:
    """Returns the error that says which shapes do not fit."""
    shapes = ", ".join(f"{name} {list(inputs[name].shape)}" for name in names)
    return InputsError(f"{op}: shapes do not fit: {shapes}")


def broadcasts(a: torch.Size, b: torch.Size, *, into: bool = False) -> bool:
    """Whether two shapes broadcast, and the first one into the second if asked for."""
    try:
        shape = torch.broadcast_shapes(a, b)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return not into or shape == b


def check_x(op: str, inputs: dict[str, Any]) -> None:
    """Checks an operation of one tensor, x."""
    checked_tensor(op, inputs, "x")


def check_positive(op: str, inputs: dict[str, Any], name: str) -> None:
    """Checks that a number that was given is above 0."""
    check_number(op, inputs, name, 0.0, above=0.0)
    if inputs[name] == 0:
        raise InputsError(f"{op}: {name}=0.0 must be positive")
