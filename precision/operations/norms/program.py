"""RMSNorm, LayerNorm and GroupNorm over any `Arithmetic`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from .groups import as_layers

V = TypeVar("V")


def rms_norm(ar: Arithmetic[V], inputs: Inputs) -> V:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019)."""
    x = ar.given(inputs["x"])
    mean = _over_n(ar, ar.sum_of_squares(x), inputs["x"].shape[-1])
    variance = ar.add(mean, ar.constant(inputs["eps"]))
    scale = ar.cast(ar.rsqrt(variance), "scale")
    if ar.declares("scale"):
        normalized = ar.mul(x, scale)
    else:
        normalized = ar.either(lambda: ar.mul(x, scale), lambda: ar.div(x, ar.sqrt(variance)))
    if inputs["weight"] is None:
        return ar.cast(ar.cast(normalized, "normalized"), "output")
    weight = ar.given(inputs["weight"])
    if ar.declares("normalized"):
        return ar.cast(ar.mul(ar.cast(normalized, "normalized"), weight), "output")
    weighted = ar.either(
        lambda: ar.mul(normalized, weight), lambda: ar.mul(x, ar.mul(scale, weight))
    )
    return ar.cast(weighted, "output")


def rms_norm_within(ar: Arithmetic[V], x: V, weight: V, eps: float, n: int) -> V:
    """RMSNorm as a step of a unit, which may store it before it is weighted."""
    mean = _over_n(ar, ar.sum_of_squares(x), n)
    shifted = ar.add(mean, ar.constant(eps))
    scale = ar.rsqrt(shifted)
    normalized = ar.either(lambda: ar.mul(x, scale), lambda: ar.div(x, ar.sqrt(shifted)))
    return ar.either(
        lambda: ar.mul(ar.may_cast(normalized, "normalized"), weight),
        lambda: ar.mul(x, ar.mul(scale, weight)),
    )


def variance(ar: Arithmetic[V], x: V, mean: V, n: int) -> V:
    """The mean square of the deviations."""
    return _over_n(ar, ar.sum_of_squares(ar.sub(x, mean), updates=4), n)


def layer_norm(
    ar: Arithmetic[V],
    inputs: Inputs,
    variance: Callable[[Arithmetic[V], V, V, int], V] = variance,
    folded: bool = False,
) -> V:
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016)."""
    x = ar.given(inputs["x"])
    n = inputs["x"].shape[-1]
    # Welford's update adds at most 4 + 2 ln n roundings of a term to the n - 1 additions.
    mean = _over_n(ar, ar.sum(x, updates=4 + math.ceil(2 * math.log(n))), n)
    shifted = ar.add(variance(ar, x, mean, n), ar.constant(inputs["eps"]))
    scale = ar.cast(ar.rsqrt(shifted), "scale")
    if folded and not (ar.declares("scale") or ar.declares("normalized")):
        return ar.cast(
            ar.either(
                lambda: _affine(ar, ar.scaled_deviation(x, mean, scale), inputs),
                lambda: _folded(ar, x, mean, scale, inputs),
            ),
            "output",
        )
    normalized = ar.cast(ar.scaled_deviation(x, mean, scale), "normalized")
    return ar.cast(_affine(ar, normalized, inputs), "output")


def _affine(ar: Arithmetic[V], normalized: V, inputs: Inputs) -> V:
    if inputs["weight"] is not None:
        normalized = ar.mul(normalized, ar.given(inputs["weight"]))
    if inputs["bias"] is not None:
        normalized = ar.add(normalized, ar.given(inputs["bias"]))
    return normalized


def _folded(ar: Arithmetic[V], x: V, mean: V, scale: V, inputs: Inputs) -> V:
    """x times scale and weight, plus what is left: both are the same throughout a channel."""
    weight, bias = inputs["weight"], inputs["bias"]
    slope = scale if weight is None else ar.mul(scale, ar.given(weight))
    return ar.scaled_deviation(x, mean, slope, None if bias is None else ar.given(bias))


def group_norm(
    ar: Arithmetic[V],
    inputs: Inputs,
    variance: Callable[[Arithmetic[V], V, V, int], V] = variance,
) -> V:
    """LayerNorm over the channels and positions of each group (Wu & He 2018)."""
    shape = inputs["x"].shape
    y = layer_norm(ar, as_layers(inputs), variance, folded=True)
    return ar.shape(lambda t: t.reshape(shape), y)


def _over_n(ar: Arithmetic[V], total: V, n: int) -> V:
    count = ar.constant(float(n))
    return ar.either(
        lambda: ar.div(total, count), lambda: ar.mul(total, ar.div(ar.constant(1.0), count))
    )
