"""Softmax and what is made of it, over any `Arithmetic`; T rows, V classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs

V = TypeVar("V")


def softmax(ar: Arithmetic[V], inputs: Inputs) -> V:
    exponentials, total, _ = softmax_terms(ar, ar.given(inputs["x"]))
    return ar.cast(ratio(ar, exponentials, total), "output")


def log_softmax(ar: Arithmetic[V], inputs: Inputs) -> V:
    """(x - max) - log of the sum, in that order: x - (max + log) loses what max is larger by."""
    x = ar.given(inputs["x"])
    _, total, maximum = softmax_terms(ar, x)
    log_total = ar.cast(ar.log(total), "logarithm")
    return ar.cast(ar.sub(ar.sub(x, maximum), log_total), "output")


def logsumexp(ar: Arithmetic[V], inputs: Inputs) -> V:
    _, total, maximum = softmax_terms(ar, ar.given(inputs["x"]))
    result = ar.add(maximum, ar.log(total))
    return ar.cast(ar.shape(lambda t: t.squeeze(-1), result), "output")


Even = Callable[[Arithmetic[V], V, Callable[[V], V], Inputs], V]


def even_loss(ar: Arithmetic[V], x: V, loss_of: Callable[[V], V], inputs: Inputs) -> V:
    """The loss [T, 1] of every class by the same share: of the mean logit, or a mean of losses."""
    n = inputs["x"].shape[-1]
    return ar.either(
        lambda: loss_of(over_count(ar, ar.sum(x), n)),
        lambda: over_count(ar, ar.sum(loss_of(x)), n),
    )


def cross_entropy(ar: Arithmetic[V], inputs: Inputs, even: Even[V] = even_loss) -> V:
    """-sum q log softmax(x), q = 1 - s on the target and s / V on every class (Szegedy et al.
    2016, section 7); per row, 0 where ignored, or the mean of the others."""
    x, smoothing, counted_T = ar.given(inputs["x"]), inputs["smoothing"], inputs["counted"]
    _, total, maximum = softmax_terms(ar, x)
    log_total = ar.log(total)

    def loss_of(values: V) -> V:
        return ar.either(
            lambda: ar.sub(ar.add(maximum, log_total), values),
            lambda: ar.sub(log_total, ar.sub(values, maximum)),
        )

    target_T1 = torch.where(counted_T, inputs["targets"], 0)[:, None]
    loss = loss_of(ar.shape(lambda t: t.gather(-1, target_T1), x))
    if smoothing:
        share = ar.constant(smoothing)
        rest = ar.mul(ar.sub(ar.constant(1.0), share), loss)
        loss = ar.add(rest, ar.mul(share, even(ar, x, loss_of, inputs)))
    loss = ar.cast(ar.shape(lambda t: t[:, 0], ar.where(counted_T[:, None], loss, 0.0)), "losses")
    if inputs["reduction"] == "none":
        return ar.cast(loss, "output")
    mean = over_count(ar, ar.sum(loss), int(counted_T.sum()))
    return ar.cast(ar.shape(lambda t: t[0], mean), "output")


def over_count(ar: Arithmetic[V], total: V, n: int) -> V:
    """A sum of n as a mean: divided, or multiplied by a reciprocal."""
    return ratio(ar, total, ar.constant(float(n)))


def softmax_terms(ar: Arithmetic[V], x: V) -> tuple[V, V, V]:
    """exp(x - max), their sum, max (Blanchard, Higham & Higham 2021)."""
    shifted, maximum = ar.shifted(x)
    exponentials = ar.cast(ar.exp(shifted), "exponentials")
    total = ar.cast(ar.sum(exponentials, rescaled=True), "sum")
    return exponentials, total, maximum


def ratio(ar: Arithmetic[V], a: V, b: V) -> V:
    return ar.either(lambda: ar.div(a, b), lambda: ar.mul(a, ar.div(ar.constant(1.0), b)))
