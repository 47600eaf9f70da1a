"""Matrix products, convolutions and lookups over any `Arithmetic`."""

from __future__ import annotations

from typing import TypeVar

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from .windows import as_product, from_product

V = TypeVar("V")


def matmul(ar: Arithmetic[V], inputs: Inputs) -> V:
    a, b = ar.given(inputs["a"]), ar.given(inputs["b"])
    bias = None if inputs["bias"] is None else ar.given(inputs["bias"])
    if bias is None or not ar.declares("product"):
        return ar.cast(ar.cast(ar.dot(a, b, bias), "product"), "output")
    return ar.cast(ar.add(ar.cast(ar.dot(a, b), "product"), bias), "output")


def linear(ar: Arithmetic[V], x: V, inputs: Inputs, name: str) -> V:
    """x times the weights of that name, and their bias where there is one, within a unit."""
    bias = inputs[f"{name}_bias"]
    return ar.dot(x, ar.given(inputs[name]), None if bias is None else ar.given(bias))


def conv1d(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Every position's window times the filters: a product of matrices for each group."""
    y = matmul(ar, as_product(inputs))
    return ar.shape(from_product, y)


def embedding(ar: Arithmetic[V], inputs: Inputs) -> V:
    """Rows of the table, times a scale where there is one."""
    rows = ar.shape(lambda t: t[inputs["ids"]], ar.given(inputs["weight"]))
    if inputs["scale"] is None:
        return ar.cast(rows, "output")
    return ar.cast(ar.mul(rows, ar.cast(ar.constant(inputs["scale"]), "scale")), "output")
