"""SiLU, GELU and the gates made of them over any `Arithmetic`."""

from __future__ import annotations

import math
from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..products.program import linear

V = TypeVar("V")


# 0.044715 x^3 (Hendrycks & Gimpel 2016, section 2), a decimal: fp64 holds it only nearly.
GELU_CUBIC = 0.044715


def silu(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(_silu(ar, ar.given(inputs["x"])), "output")


def _silu(ar: Arithmetic[V], x: V) -> V:
    """x / (1 + exp(-x))."""
    return _times_sigmoid(ar, x, x, "sigmoid")


def _times_sigmoid(ar: Arithmetic[V], x: V, y: V, point: str) -> V:
    """x * sigmoid(y)."""
    one = ar.constant(1.0)
    denominator = ar.add(one, ar.exp(ar.neg(y)))

    def product() -> V:
        return ar.mul(x, ar.cast(ar.div(one, denominator), point))

    if ar.declares(point):
        return product()
    return ar.either(lambda: ar.div(x, denominator), product)


def swiglu(ar: Arithmetic[V], inputs: Inputs) -> V:
    """act(gate) * up (Shazeer 2020), act SiLU or GELU's tanh form."""
    gate, up = ar.given(inputs["gate"]), ar.given(inputs["up"])
    act = _silu if inputs["activation"] == "silu" else _gelu_tanh
    return ar.cast(ar.mul(ar.cast(act(ar, gate), "activated"), up), "output")


def clamped_swiglu(ar: Arithmetic[V], inputs: Inputs) -> V:
    """g sigmoid(alpha g) (u + offset): g the gate, at most limit, u within limit either way.

    gpt-oss's, with alpha 1.702 and offset 1, and with 1 and 0 that of models which only clamp.
    """
    limit = ar.constant(inputs["limit"])
    gate = ar.shape(torch.minimum, ar.given(inputs["gate"]), limit)
    above = ar.shape(torch.maximum, ar.given(inputs["up"]), ar.neg(limit))
    return clamped_product(ar, gate, ar.shape(torch.minimum, above, limit), inputs)


def clamped_product(ar: Arithmetic[V], gate: V, up: V, inputs: Inputs) -> V:
    """The gated product of a gate and an up that are clamped already."""
    slope = gate if inputs["alpha"] == 1 else ar.mul(gate, ar.constant(inputs["alpha"]))
    activated = _times_sigmoid(ar, gate, ar.cast(slope, "scaled"), "sigmoid")
    shifted = up if inputs["offset"] == 0 else ar.add(up, ar.constant(inputs["offset"]))
    return ar.cast(ar.mul(ar.cast(activated, "activated"), ar.cast(shifted, "shifted")), "output")


def gated_mlp(ar: Arithmetic[V], inputs: Inputs) -> V:
    """down(act(gate(x)) * up(x)) in one; what lies between may be rounded to storage or be kept."""
    x = ar.given(inputs["x"])
    gate, up = (_hidden(ar, x, inputs, name) for name in ("gate", "up"))
    act = _silu if inputs["activation"] == "silu" else _gelu_tanh
    activated = ar.may_cast(act(ar, gate), "activated")
    product = ar.may_cast(ar.mul(activated, up), "product")
    return ar.cast(linear(ar, product, inputs, "down"), "output")


def _hidden(ar: Arithmetic[V], x: V, inputs: Inputs, name: str) -> V:
    return ar.may_cast(linear(ar, x, inputs, name), "hidden")


def gelu(ar: Arithmetic[V], inputs: Inputs) -> V:
    x = ar.given(inputs["x"])
    act = _gelu_tanh if inputs["approximate"] == "tanh" else _gelu_erf
    return ar.cast(act(ar, x), "output")


def _gelu_erf(ar: Arithmetic[V], x: V) -> V:
    """0.5 x (1 + erf(x / sqrt 2)): the sum cancels for x < 0, and the bound says so."""
    root, one = ar.constant(math.sqrt(0.5), exact=False), ar.constant(1.0)
    argument = ar.mul(x, root)
    twice = ar.either(lambda: ar.add(one, ar.erf(argument)), lambda: ar.erfc(ar.neg(argument)))
    return _halved(ar, x, twice)


def _halved(ar: Arithmetic[V], x: V, twice: V) -> V:
    half = ar.constant(0.5)
    if ar.declares("distribution"):
        return ar.mul(x, ar.cast(ar.mul(half, twice), "distribution"))
    return ar.either(  # the last, torch's, overflows where x is above half of the largest number
        lambda: ar.mul(x, ar.mul(half, twice)),
        lambda: ar.mul(ar.mul(half, x), twice),
        lambda: ar.mul(half, ar.mul(x, twice)),
    )


def _gelu_tanh(ar: Arithmetic[V], x: V) -> V:
    """x sigmoid(2y) = 0.5 x (1 + tanh y), y = sqrt(2/pi) (x + 0.044715 x^3)."""
    cubic = ar.constant(GELU_CUBIC, exact=False)
    root = ar.constant(math.sqrt(2 / math.pi), exact=False)
    twice_root = ar.constant(2 * math.sqrt(2 / math.pi), exact=False)
    one, square = ar.constant(1.0), ar.square(x)
    inner = ar.either(
        lambda: ar.add(x, ar.mul(cubic, ar.mul(x, square))),
        lambda: ar.mul(x, ar.add(one, ar.mul(cubic, square))),
    )
    return ar.either(
        lambda: _halved(ar, x, ar.add(one, ar.tanh(ar.mul(root, inner)))),
        lambda: _times_sigmoid(ar, x, ar.mul(twice_root, inner), "distribution"),
    )
