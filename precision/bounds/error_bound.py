"""The bound of a contract, and which kind of growth to apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from ..arithmetic.rounding_model import RoundingModel, fp64_model
from ..contract import PrecisionContract
from ..operations import OPERATIONS
from ..reals.definitions import arguments_of, evaluate
from ..reals.fp64 import Fp64
from .rounding_model import model_of

Tensor = torch.Tensor
Kind = Literal["worst_case", "probabilistic"]

# The bounds are sums of terms without cancellation, evaluated in fp64: relative errors far below.
_EVALUATION = 1 + 2.0**-20


def error_bound(
    contract: PrecisionContract,
    inputs: Mapping[str, Any],
    kind: Kind = "worst_case",
    *,
    failure_probability: float = 1e-6,
) -> Tensor:
    """Bounds the distance to the true value of an output that keeps `contract`: fp64, its shape.

    Inputs (by the operation's argument names) are taken as exact. inf where a permitted
    intermediate can overflow; NaN where the true value is. "worst_case" is proven;
    "probabilistic" lets reductions grow with the root of their length, for all outputs at once but
    for `failure_probability`, and rests on the assumptions of `gamma_probabilistic`: expect it,
    do not judge by it alone.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"error_bound: kind {kind!r} is none of {', '.join(get_args(Kind))}")
    if kind == "worst_case":
        model = model_of(contract)
    else:
        events = OPERATIONS[contract.op].roundings(inputs)
        model = model_of(contract, events=events, failure_probability=failure_probability)
    arguments = arguments_of(contract.op, inputs)
    value = evaluate(Fp64(), contract.op, arguments)
    bound = bound_under(model, contract.op, value, arguments)
    # `value` is itself an approximation: what it may be off adds to what the formulas see of it.
    return bound + bound_under(fp64_model(), contract.op, value, arguments)


def bound_under(
    model: RoundingModel, op: str, value: Tensor, arguments: Mapping[str, Any]
) -> Tensor:
    """`op`'s bound for any rounding model; `value` is the operation's output in fp64."""
    return OPERATIONS[op].bound(model, value, **arguments) * _EVALUATION
