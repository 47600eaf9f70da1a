"""Rotary position embedding over any `Arithmetic`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def rope(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Rotate-half (Su et al. 2021): the pair (x[j], x[j + d/2]) turned by p theta^(-2j/d), or by
    p inv_freq[j] and lengthened by attention_factor where the frequencies are scaled."""
    half = inputs["x"].shape[-1] // 2
    return ar.cast(rotated(ar, ar.given(inputs["x"]), inputs, half, ar.cast), "output")


def rotated(
    ar: Arithmetic[V], x: V, inputs: Inputs, half: int, rounding: Callable[[V, str], V]
) -> V:
    """x of 2 `half` features turned; tables and products go through `rounding`."""
    x1 = ar.shape(lambda t: t[..., :half], x)
    x2 = ar.shape(lambda t: t[..., half:], x)
    cos, sin = (rounding(table, "tables") for table in _tables(ar, inputs, half))

    def product(a: V, b: V) -> V:
        return rounding(ar.mul(a, b), "products")

    first = ar.sub(product(x1, cos), product(x2, sin))
    second = ar.add(product(x2, cos), product(x1, sin))
    return ar.shape(lambda *parts: torch.cat(parts, -1), first, second)


def _tables(ar: Arithmetic[V], inputs: Inputs, half: int) -> tuple[V, V]:
    if inputs["cos"] is not None:
        return ar.given(inputs["cos"]), ar.given(inputs["sin"])
    angles = ar.in_format("angles")
    angle = _angle(angles, inputs, half)
    cos, sin = (_lengthened(angles, f(angle), inputs) for f in (angles.cos, angles.sin))
    return ar.convert(cos), ar.convert(sin)


def _lengthened(ar: Arithmetic[V], table: V, inputs: Inputs) -> V:
    factor = inputs["attention_factor"]
    return table if factor == 1.0 else ar.mul(table, ar.constant(factor))


def _angle(ar: Arithmetic[V], inputs: Inputs, half: int) -> V:
    position = ar.given(inputs["positions"].to(torch.float64).unsqueeze(-1))
    if inputs["inv_freq"] is None:
        return ar.mul(position, _frequency(ar, inputs["theta"], half))
    inv_freq = torch.tensor(inputs["inv_freq"], dtype=torch.float64)
    return ar.mul(position, ar.convert(ar.given(inv_freq)))


def _frequency(ar: Arithmetic[V], theta: float, half: int) -> V:
    """theta^(-2j/d)."""
    index = torch.arange(half, dtype=torch.float64)
    fraction = ar.div(ar.given(index), ar.constant(float(half)))
    log_theta = ar.log(ar.constant(theta))
    return ar.either(
        lambda: ar.div(ar.constant(1.0), ar.power(theta, fraction)),
        lambda: ar.exp(ar.neg(ar.mul(fraction, log_theta))),
    )
