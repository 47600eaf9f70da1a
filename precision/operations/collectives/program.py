"""Sums over ranks over any `Arithmetic`; m elements, k ranks."""

from __future__ import annotations

from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..softmax.program import over_count

V = TypeVar("V")


def rank_sum(ar: Arithmetic[V], inputs: Inputs) -> V:
    """The sum over the last axis, in the contract's order from each element's first rank on."""
    first_mk, ranks = inputs["order_of_ranks"], inputs["x"].shape[-1]
    parts = ar.shape(lambda t: t.gather(-1, first_mk.expand(t.shape)), ar.given(inputs["x"]))
    total = ar.cast(ar.sum(parts), "sum")
    if inputs["average"]:
        total = over_count(ar, total, ranks)
    return ar.cast(ar.shape(lambda t: t[..., 0], total), "output")


def ring(elements: int, ranks: int, chunks: int) -> torch.Tensor:
    """The ranks [m, k] in which a ring meets each element: chunk c starts behind rank c."""
    chunk = torch.arange(elements) * chunks // max(elements, 1)
    return (chunk[:, None] + 1 + torch.arange(ranks)) % ranks
