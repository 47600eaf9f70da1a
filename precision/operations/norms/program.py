"""RMSNorm and LayerNorm over any `Arithmetic`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def rms_norm(ar: Arithmetic[V], inputs: Inputs) -> V:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019)."""
    x, weight = ar.given(inputs["x"]), ar.given(inputs["weight"])
    mean = _over_n(ar, ar.sum_of_squares(x), inputs["x"].shape[-1])
    variance = ar.add(mean, ar.constant(inputs["eps"]))
    scale = ar.cast(ar.rsqrt(variance), "scale")
    if ar.declares("scale"):
        normalized = ar.mul(x, scale)
    else:
        normalized = ar.either(lambda: ar.mul(x, scale), lambda: ar.div(x, ar.sqrt(variance)))
    if ar.declares("normalized"):
        return ar.cast(ar.mul(ar.cast(normalized, "normalized"), weight), "output")
    weighted = ar.either(
        lambda: ar.mul(normalized, weight), lambda: ar.mul(x, ar.mul(scale, weight))
    )
    return ar.cast(weighted, "output")


def variance(ar: Arithmetic[V], x: V, mean: V, n: int) -> V:
    """The mean square of the deviations."""
    return _over_n(ar, ar.sum_of_squares(ar.sub(x, mean), updates=4), n)


def layer_norm(
    ar: Arithmetic[V],
    inputs: Inputs,
    variance: Callable[[Arithmetic[V], V, V, int], V] = variance,
) -> V:
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016)."""
    x, weight, bias = (ar.given(inputs[name]) for name in ("x", "weight", "bias"))
    n = inputs["x"].shape[-1]
    # Welford's update adds at most 4 + 2 ln n roundings of a term to the n - 1 additions.
    mean = _over_n(ar, ar.sum(x, updates=4 + math.ceil(2 * math.log(n))), n)
    shifted = ar.add(variance(ar, x, mean, n), ar.constant(inputs["eps"]))
    scale = ar.cast(ar.rsqrt(shifted), "scale")
    normalized = ar.cast(ar.scaled_deviation(x, mean, scale), "normalized")
    return ar.cast(ar.add(ar.mul(normalized, weight), bias), "output")


def _over_n(ar: Arithmetic[V], total: V, n: int) -> V:
    count = ar.constant(float(n))
    return ar.either(
        lambda: ar.div(total, count), lambda: ar.mul(total, ar.div(ar.constant(1.0), count))
    )
