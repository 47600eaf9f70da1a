"""Log-softmax and losses as implementations have got them wrong.

Each is a correct program but for one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def log_of_softmax(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The logarithm of a probability that is rounded to 0 (tracel-ai/burn#315)."""
    exponentials, total, _ = program.softmax_terms(ar, ar.given(inputs["x"]))
    return ar.cast(ar.log(program.ratio(ar, exponentials, total)), "output")


def log_sum_added_to_maximum(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """x less a sum of the maximum and a logarithm small beside it (pytorch#11752)."""
    x = ar.given(inputs["x"])
    _, total, maximum = program.softmax_terms(ar, x)
    return ar.cast(ar.sub(x, ar.add(maximum, ar.log(total))), "output")


def ignored_in_mean(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The sum of the rows that count, over the number of all rows."""
    losses = program.cross_entropy(ar, {**inputs, "reduction": "none"})
    if inputs["reduction"] == "none":
        return losses
    mean = program.over_count(ar, ar.sum(losses), len(inputs["targets"]))
    return ar.cast(ar.shape(lambda t: t[0], mean), "output")


def smoothed_over_others(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The smoothing spread over the V - 1 classes that are not the target."""
    return program.cross_entropy(ar, inputs, even=_others)


def _others(ar: Arithmetic[Any], x: Any, loss_of: Callable[[Any], Any], inputs: Inputs) -> Any:
    n = inputs["x"].shape[-1]
    target_T1 = torch.where(inputs["counted"], inputs["targets"], 0)[:, None]
    others = torch.arange(n) != target_T1
    total = ar.sum(ar.where(others, loss_of(x), 0.0))
    return program.over_count(ar, total, max(n - 1, 1))
