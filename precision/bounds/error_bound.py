"""The bound of a contract: dispatch, and which kind of growth to apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch

from ..contract import PrecisionContract
from ..reals.definitions import arguments_of, evaluate
from ..reals.fp64 import Fp64
from .attention import attention_bound
from .gates import gelu_bound, silu_bound, soft_cap_bound, swiglu_bound
from .norms import layer_norm_bound, rms_norm_bound
from .products import matmul_bound
from .rope import rope_bound
from .rounding_model import RoundingModel, fp64_model, model_of
from .softmax import logsumexp_bound, softmax_bound

Tensor = torch.Tensor
Kind = Literal["worst_case", "probabilistic"]

# The bounds are sums of terms without cancellation, evaluated in fp64: relative errors far below.
_EVALUATION = 1 + 2.0**-20

_BOUNDS: dict[str, Callable[..., Tensor]] = {
    "matmul": matmul_bound,
    "rms_norm": rms_norm_bound,
    "layer_norm": layer_norm_bound,
    "softmax": softmax_bound,
    "logsumexp": logsumexp_bound,
    "attention": attention_bound,
    "soft_cap": soft_cap_bound,
    "rope": rope_bound,
    "silu": silu_bound,
    "swiglu": swiglu_bound,
    "gelu": gelu_bound,
}


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
        events = _roundings(contract.op, inputs)
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
    return _BOUNDS[op](model, value, **arguments) * _EVALUATION


def _roundings(op: str, inputs: Mapping[str, Any]) -> int:
    """How many roundings happen inside reductions."""
    if op == "matmul":
        return int(inputs["a"].numel() * inputs["b"].shape[-1])
    if op == "attention":
        queries, keys = inputs["q"], inputs["k"]
        return int(queries.numel() * keys.shape[-2] * 3)
    return 2 * max(x.numel() for x in inputs.values() if isinstance(x, Tensor))
