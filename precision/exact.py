"""Exact references: true values of the operations with proven error bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from .arithmetic.rounding_model import fp64_model
from .bounds.error_bound import bound_under
from .reals.definitions import arguments_of, evaluate
from .reals.fp64 import Fp64, Fsum, exact_dot
from .ulp import ulp

__all__ = ["Method", "Reference", "exact_dot", "reference"]

Method = Literal["fp64", "exact", "arb"]


@dataclass(frozen=True)
class Reference:
    """|value - truth| <= error elementwise; both fp64, shaped like the output."""

    value: torch.Tensor
    error: torch.Tensor


def reference(op: str, inputs: Mapping[str, Any], method: Method = "fp64") -> Reference:
    """The true value of `op` at `inputs`, which are taken as exact.

    Methods: "fp64" evaluates vectorised in fp64, with the worst-case bound of that arithmetic as
    its error; "exact" replaces every sum by the exact one rounded once (math.fsum), so that a
    matrix product is correctly rounded; "arb" evaluates balls of 256 bits and is good to half an
    ULP of fp64 everywhere, transcendentals included. The last two are Python loops: for checking,
    on thousands of operations rather than millions.

    Raises ValueError for a method or inputs that do not fit, ImportError for "arb" without
    python-flint.
    """
    if method not in get_args(Method):
        raise ValueError(f"reference: method {method!r} is none of {', '.join(get_args(Method))}")
    arguments = arguments_of(op, inputs)
    if method == "arb":
        return _balls(op, arguments)
    if method == "exact" and op == "matmul":
        return _rounded_product(**arguments)
    value = evaluate(Fp64() if method == "fp64" else Fsum(), op, arguments)
    # An exact sum rounds once, however long it is.
    model = fp64_model() if method == "fp64" else fp64_model(depth=lambda n: 1)
    return Reference(value, bound_under(model, op, value, arguments))


def _balls(op: str, arguments: Mapping[str, Any]) -> Reference:
    from .reals import arb

    with arb.working_precision():
        return Reference(*arb.to_fp64(evaluate(arb.Arb(), op, arguments)))


def _rounded_product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> Reference:
    """The bias enters the one exact sum as a last term, times 1."""
    if bias is not None:
        a = torch.cat([a.double(), torch.ones(*a.shape[:-1], 1, dtype=torch.float64)], -1)
        row = bias.double().expand(*b.shape[:-2], 1, b.shape[-1])
        b = torch.cat([b.double(), row], -2)
    value = exact_dot(a, b)
    return Reference(value, ulp(value) / 2)
