"""Bounds and condition of matrix products.

Higham 2002, section 3.5; Blanchard et al., SISC 42, 2020.
"""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel

Tensor = torch.Tensor


def matmul_bound(
    model: RoundingModel, y: Tensor, a: Tensor, b: Tensor, bias: Tensor | None
) -> Tensor:
    """gamma |a||b| for the sums, then the bias and the casts."""
    magnitude, error = dot_error(model, a, b)
    if bias is not None:
        offset = bias.double().abs()
        error = error + model.flushed(offset)
        error = model.cast("product", y.abs() + offset, error)
        magnitude = magnitude + offset
        error = error + model.addition * (magnitude + error)
    else:
        error = model.cast("product", y, error)
    error = model.within_range(error, magnitude + error)
    return model.cast("output", y, error)


def dot_error(model: RoundingModel, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """|a||b|, and how far a @ b can be off before any cast of it.

    Factors rounded to `compute` first multiply exactly, but add two roundings to every product.
    """
    n = a.shape[-1]
    a, b = a.double().abs(), b.double().abs()
    magnitude = a @ b
    growth = model.dot_growth(n, exact_terms=model.products_exact(a, b))
    error = growth * magnitude + n * model.underflow * (1 + growth)
    if model.may_flush:
        error = error + (1 + growth) * (model.flushed(a) @ b + a @ model.flushed(b))
    fmt = model.casts.get("inputs")
    if fmt is not None:
        lost = a.sum(-1, keepdim=True) + b.sum(-2, keepdim=True) + n * model.lost(fmt)
        error = error + (1 + growth) * model.lost(fmt) * lost
        error = error.masked_fill(a.amax().maximum(b.amax()) > fmt.largest, torch.inf)
    return magnitude, error


def matmul_spread(y: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.double().abs() @ b.double().abs()
