"""Adam's step as implementations have got it wrong, each right but for one thing."""

from __future__ import annotations

from typing import Any

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def eps_before_correction(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """eps beside a root that is not corrected yet: larger in the first steps
    (tensorflow#35102, karpathy/nanochat#304)."""
    rest = 1 - inputs["beta2"] ** inputs["step"]
    return program.adam_step(ar, {**inputs, "eps": inputs["eps"] / rest**0.5})


def without_correction(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The step is never counted: moments that start at 0 are taken for means
    (allenai/OLMo-core#317)."""
    return program.adam_step(ar, {**inputs, "step": 10**9})


def other_decay(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """AdamW's weight decay added to the gradient, or Adam's not."""
    return program.adam_step(ar, {**inputs, "decoupled": not inputs["decoupled"]})
