"""Formulas as implementations have got them wrong, each a correct program but for one thing.

For `Emulation` only: some look at the numbers that they compute with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from . import programs
from .arithmetic.interface import Arithmetic
from .inputs import Inputs, visible_keys

Tensor = torch.Tensor
Formula = Callable[[Arithmetic[Any], Inputs], Any]

SMALL_VARIANCE = 1e-6


def layer_norm_from_squares(ar: Arithmetic[Tensor], inputs: Inputs) -> Tensor:
    """The variance as E[x^2] - E[x]^2, which cancels where the mean is large (pytorch#51102)."""
    return programs.layer_norm(ar, inputs, variance=_from_squares)


def _from_squares(ar: Arithmetic[Tensor], x: Tensor, mean: Tensor, n: int) -> Tensor:
    squares = ar.div(ar.sum_of_squares(x), ar.constant(float(n)))
    return ar.sub(squares, ar.square(mean)).clamp(min=0.0)


def layer_norm_without_small_variance(ar: Arithmetic[Tensor], inputs: Inputs) -> Tensor:
    """A variance below 1e-6 taken as 0 (pytorch#190491)."""

    def variance(ar: Arithmetic[Tensor], x: Tensor, mean: Tensor, n: int) -> Tensor:
        honest = programs.variance(ar, x, mean, n)
        return ar.where(honest >= SMALL_VARIANCE, honest, 0.0)

    return programs.layer_norm(ar, inputs, variance=variance)


def attention_without_scale(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """1 / sqrt(d), whatever `scale` says."""
    return programs.attention(ar, {**inputs, "scale": 1 / math.sqrt(inputs["q"].shape[-1])})


def attention_without_cap(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    return programs.attention(ar, {**inputs, "cap": None})


def attention_without_past(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The queries stand at the end of the keys, whatever `past` says."""
    n_queries, n_keys = inputs["q"].shape[-2], inputs["k"].shape[-2]
    options = {name: inputs[name] for name in ("causal", "window")}
    visible = visible_keys(n_queries, n_keys, past=n_keys - n_queries, **options)
    return programs.attention(ar, {**inputs, "visible": visible})


def attention_capped_after_mask(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """A hidden key keeps the score -cap (onnx#7865)."""
    cap = inputs["cap"]
    return programs.attention(ar, inputs, hidden=-math.inf if cap is None else -cap)
