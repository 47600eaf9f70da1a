"""Adam's step over any `Arithmetic`."""

from __future__ import annotations

from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def adam_step(ar: Arithmetic[V], inputs: Inputs) -> V:
    """The parameter after a step, or one of its moments (Kingma & Ba 2015; decoupled weight decay
    by Loshchilov & Hutter 2019)."""
    parameter, gradient = ar.given(inputs["parameter"]), ar.given(inputs["gradient"])
    rate, decay = inputs["rate"], inputs["decay"]
    if decay and not inputs["decoupled"]:
        gradient = ar.add(gradient, ar.mul(parameter, ar.constant(decay)))
    first = ar.cast(_first(ar, gradient, inputs), "first")
    if inputs["result"] == "first":
        return ar.cast(first, "output")
    second = ar.cast(_second(ar, gradient, inputs), "second")
    if inputs["result"] == "second":
        return ar.cast(second, "output")
    if decay and inputs["decoupled"]:
        parameter = ar.mul(parameter, ar.constant(1 - rate * decay, exact=False))
    return ar.cast(ar.sub(parameter, update(ar, first, second, inputs)), "output")


def _first(ar: Arithmetic[V], gradient: V, inputs: Inputs) -> V:
    beta, old = inputs["beta1"], ar.given(inputs["first"])
    kept, new = ar.constant(beta), ar.constant(1 - beta, exact=False)
    return ar.either(
        lambda: ar.add(old, ar.mul(new, ar.sub(gradient, old))),
        lambda: ar.add(ar.mul(kept, old), ar.mul(new, gradient)),
    )


def _second(ar: Arithmetic[V], gradient: V, inputs: Inputs) -> V:
    beta, old = inputs["beta2"], ar.given(inputs["second"])
    kept, new = ar.constant(beta), ar.constant(1 - beta, exact=False)
    square = ar.either(
        lambda: ar.mul(ar.mul(new, gradient), gradient),
        lambda: ar.mul(new, ar.square(gradient)),
    )
    return ar.add(ar.mul(kept, old), square)


def update(ar: Arithmetic[V], first: V, second: V, inputs: Inputs) -> V:
    """rate / (1 - beta1^t) first / (sqrt(second / (1 - beta2^t)) + eps)."""
    rest1, rest2 = (1 - inputs[f"beta{i}"] ** inputs["step"] for i in (1, 2))
    eps = ar.constant(inputs["eps"])
    size = ar.constant(inputs["rate"] / rest1, exact=False)
    root = ar.either(
        lambda: ar.div(ar.sqrt(second), ar.constant(rest2**0.5, exact=False)),
        lambda: ar.sqrt(ar.div(second, ar.constant(rest2, exact=False))),
    )
    denominator = ar.add(root, eps)
    return ar.either(
        lambda: ar.mul(size, ar.div(first, denominator)),
        lambda: ar.div(ar.mul(size, first), denominator),
        lambda: ar.div(first, ar.div(denominator, size)),
    )
