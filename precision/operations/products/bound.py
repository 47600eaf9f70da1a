"""Bounds and conditions of matrix products, convolutions and lookups.

Higham 2002, section 3.5; Blanchard et al., SISC 42, 2020.
"""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.rounding_model import RoundingModel
from .windows import as_product, from_product

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


def conv1d_bound(model: RoundingModel, y: Tensor, **inputs: Any) -> Tensor:
    """A product's, window by window; its bias may come last, or as the first term of the sum."""
    factors = as_product(inputs)
    product = y.reshape(len(y), inputs["groups"], -1, y.shape[-1]).mT
    error = matmul_bound(model, product, **factors)
    bias = factors.pop("bias")
    if bias is not None and "product" not in model.casts:
        a = torch.cat([factors["a"], torch.ones_like(factors["a"][..., :1])], -1)
        b = torch.cat([factors["b"].double(), bias.double()], -2)
        error = error.maximum(matmul_bound(model, product, a, b, None))
    return from_product(error)


def conv1d_spread(y: Tensor, **inputs: Any) -> Tensor:
    return from_product(matmul_spread(y, **as_product(inputs)))


def embedding_bound(
    model: RoundingModel, y: Tensor, ids: Tensor, weight: Tensor, scale: float | None
) -> Tensor:
    rows = weight.double()[ids].abs()
    error = model.flushed(rows)
    if scale is not None:
        factor = y.new_tensor(scale)
        off = model.cast("scale", factor, model.steps(1) * factor.abs())
        error = (factor.abs() + off) * error + off * rows
        error = error + model.steps(1) * (y.abs() + error) + model.underflow
    return model.cast("output", y, model.within_range(error, y.abs() + error))


def embedding_spread(y: Tensor, ids: Tensor, weight: Tensor, scale: float | None) -> Tensor:
    return y.abs()
