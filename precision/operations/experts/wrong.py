"""Gates of experts as implementations have got them wrong, each right but for one thing."""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from . import program


def gates_are_logits(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """Without renormalising, the logits themselves (sgl-project/sglang#35160)."""
    if inputs["renormalize"]:
        return program.moe_gate(ar, inputs)
    logits = ar.where(inputs["chosen"], ar.given(inputs["x"]), 0.0)
    return ar.where(~inputs["undecided"], ar.cast(logits, "output"), torch.nan)


def other_renormalization(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """Shares where scores are asked for, and scores where shares are."""
    return program.moe_gate(ar, {**inputs, "renormalize": not inputs["renormalize"]})


def bias_in_weights(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The scores that experts are chosen by for those that they are weighed by."""
    if inputs["bias"] is None:
        return program.moe_gate(ar, inputs)
    scores, _ = program.expert_scores(ar, inputs)
    weights = ar.add(scores, ar.given(inputs["bias"]))
    if inputs["renormalize"]:
        weights = program.shares(ar, weights, inputs["chosen"])
    return program.gate_output(ar, weights, inputs, inputs["undecided"])


def without_bias(ar: Arithmetic[Any], inputs: Inputs) -> Any:
    """The best experts by their bare scores."""
    if inputs["bias"] is None:
        return program.moe_gate(ar, inputs)
    k, x = inputs["k"], inputs["x"]
    chosen = torch.zeros_like(inputs["chosen"]).scatter(-1, x.topk(k, -1).indices, True)
    return program.moe_gate(ar, {**inputs, "bias": None, "chosen": chosen})
