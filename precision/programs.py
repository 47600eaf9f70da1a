"""Each operation's formula, once, over any `Arithmetic`.

Inputs come validated (inputs.py). T query positions, K keys, H heads, G key/value heads, d d_head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from .arithmetic.interface import Arithmetic

V = TypeVar("V")

Tensor = torch.Tensor
Inputs = Mapping[str, Any]

# 0.044715 x^3 (Hendrycks & Gimpel 2016, section 2), a decimal: fp64 holds it only nearly.
GELU_CUBIC = 0.044715


def matmul(ar: Arithmetic[V], inputs: Inputs) -> V:
    a, b = ar.given(inputs["a"]), ar.given(inputs["b"])
    bias = None if inputs["bias"] is None else ar.given(inputs["bias"])
    if bias is None or not ar.declares("product"):
        return ar.cast(ar.cast(ar.dot(a, b, bias), "product"), "output")
    return ar.cast(ar.add(ar.cast(ar.dot(a, b), "product"), bias), "output")


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


def softmax(ar: Arithmetic[V], inputs: Inputs) -> V:
    exponentials, total, _ = _softmax_terms(ar, ar.given(inputs["x"]))
    return ar.cast(_ratio(ar, exponentials, total), "output")


def logsumexp(ar: Arithmetic[V], inputs: Inputs) -> V:
    _, total, maximum = _softmax_terms(ar, ar.given(inputs["x"]))
    result = ar.add(maximum, ar.log(total))
    return ar.cast(ar.shape(lambda t: t.squeeze(-1), result), "output")


def _softmax_terms(ar: Arithmetic[V], x: V) -> tuple[V, V, V]:
    """exp(x - max), their sum, max (Blanchard, Higham & Higham 2021)."""
    shifted, maximum = ar.shifted(x)
    exponentials = ar.cast(ar.exp(shifted), "exponentials")
    total = ar.cast(ar.sum(exponentials, rescaled=True), "sum")
    return exponentials, total, maximum


def _ratio(ar: Arithmetic[V], a: V, b: V) -> V:
    return ar.either(lambda: ar.div(a, b), lambda: ar.mul(a, ar.div(ar.constant(1.0), b)))


def attention(ar: Arithmetic[V], inputs: Inputs, hidden: float = -math.inf) -> V:
    """softmax(scale q k^T, soft-capped) v over the visible keys; q [H, T, d], k, v [G, K, d].

    `hidden` is the score of the other keys.
    """
    q, k, v = (ar.given(inputs[name]) for name in "qkv")
    visible_TK, group = inputs["visible"], inputs["q"].shape[-3] // inputs["k"].shape[-3]
    k = ar.shape(lambda t: t.repeat_interleave(group, -3).mT, k)
    v = ar.shape(lambda t: t.repeat_interleave(group, -3), v)
    # The scale, or its root, may be multiplied into q and k first: four roundings of each product.
    updates = 0 if ar.declares("scores") or _power_of_four(inputs["scale"]) else 4
    scores = ar.cast(ar.dot(q, k, updates=updates), "scores")
    scaled = ar.cast(ar.mul(scores, ar.constant(inputs["scale"])), "scaled")
    if inputs["cap"] is not None:
        scaled = _soft_cap(ar, scaled, inputs["cap"])
    exponentials = ar.exp(ar.shifted(ar.where(visible_TK, scaled, hidden))[0])
    total = ar.sum(exponentials, rescaled=True)
    if ar.declares("exponentials"):
        mixed = ar.dot(ar.cast(exponentials, "exponentials"), v, rescaled=True)
        return ar.cast(_ratio(ar, mixed, total), "output")
    pattern = ar.cast(_ratio(ar, exponentials, total), "probabilities")
    if ar.declares("probabilities"):
        return ar.cast(ar.dot(pattern, v), "output")
    # Dividing by the sum may wait until the values are summed: two roundings of each product.
    return ar.cast(ar.dot(pattern, v, updates=2, rescaled=True), "output")


def soft_cap(ar: Arithmetic[V], inputs: Inputs) -> V:
    return ar.cast(_soft_cap(ar, ar.given(inputs["x"]), inputs["cap"]), "output")


def _soft_cap(ar: Arithmetic[V], x: V, cap: float) -> V:
    """cap tanh(x / cap) (Gemma 2, arXiv 2408.00118)."""
    bend = ar.constant(cap)
    quotient = ar.cast(_ratio(ar, x, bend), "quotient")
    return ar.mul(ar.cast(ar.tanh(quotient), "tanh"), bend)


def _power_of_four(scale: float) -> bool:
    fraction, exponent = math.frexp(scale)
    return fraction == 0.5 and exponent % 2 == 1


def rope(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Rotate-half (Su et al. 2021): the pair (x[j], x[j + d/2]) turned by p theta^(-2j/d), or by
    p inv_freq[j] and lengthened by attention_factor where the frequencies are scaled."""
    half = inputs["x"].shape[-1] // 2
    x = ar.given(inputs["x"])
    x1 = ar.shape(lambda t: t[..., :half], x)
    x2 = ar.shape(lambda t: t[..., half:], x)
    cos, sin = _tables(ar, inputs, half)

    def product(a: V, b: V) -> V:
        return ar.cast(ar.mul(a, b), "products")

    first = ar.sub(product(x1, cos), product(x2, sin))
    second = ar.add(product(x2, cos), product(x1, sin))
    return ar.cast(ar.shape(lambda *parts: torch.cat(parts, -1), first, second), "output")


def _tables(ar: Arithmetic[V], inputs: Inputs, half: int) -> tuple[V, V]:
    if inputs["cos"] is not None:
        cos, sin = ar.given(inputs["cos"]), ar.given(inputs["sin"])
    else:
        angles = ar.in_format("angles")
        angle = _angle(angles, inputs, half)
        cos, sin = (_lengthened(angles, f(angle), inputs) for f in (angles.cos, angles.sin))
        cos, sin = ar.convert(cos), ar.convert(sin)
    return ar.cast(cos, "tables"), ar.cast(sin, "tables")


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


def gated_mlp(ar: Arithmetic[V], inputs: Inputs) -> V:
    """down(act(gate(x)) * up(x)) in one; what lies between may be rounded to storage or be kept."""
    x = ar.given(inputs["x"])
    gate, up = (_hidden(ar, x, inputs, name) for name in ("gate", "up"))
    act = _silu if inputs["activation"] == "silu" else _gelu_tanh
    activated = _may_cast(ar, act(ar, gate), "activated")
    product = _may_cast(ar, ar.mul(activated, up), "product")
    return ar.cast(_linear(ar, product, inputs, "down"), "output")


def _hidden(ar: Arithmetic[V], x: V, inputs: Inputs, name: str) -> V:
    return _may_cast(ar, _linear(ar, x, inputs, name), "hidden")


def _linear(ar: Arithmetic[V], x: V, inputs: Inputs, name: str) -> V:
    bias = inputs[f"{name}_bias"]
    return ar.dot(x, ar.given(inputs[name]), None if bias is None else ar.given(bias))


def _may_cast(ar: Arithmetic[V], v: V, point: str) -> V:
    return ar.either(lambda: ar.cast(v, point), lambda: v)


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
    return ar.either(lambda: ar.mul(x, ar.mul(half, twice)), lambda: ar.mul(ar.mul(half, x), twice))


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
