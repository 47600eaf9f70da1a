"""Cross entropy as implementations have got it wrong, each a correct program but for one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


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
