"""The gate of experts over any `Arithmetic`; T rows, V experts."""

from __future__ import annotations

from typing import TypeVar

import torch

from ...arithmetic.interface import Arithmetic
from ...inputs import Inputs
from ..elementwise.program import sigmoid_of
from ..softmax.program import ratio, softmax_terms

V = TypeVar("V")


def moe_gate(ar: Arithmetic[V], inputs: Inputs) -> V:
    """The weights of the k best experts of each row, 0 of the others [T, V]; their scores, or
    their shares of the sum of these, times a factor. A bias is added to scores for the choice
    alone (DeepSeek-V3, arXiv 2412.19437, equation 16). Where the k-th best ties with the next one,
    or rounding may order biased scores otherwise, nothing is said of the row."""
    scores, exponentials = expert_scores(ar, inputs)
    chosen_TV, undecided_TV = inputs["chosen"], inputs["undecided"]
    if inputs["bias"] is not None:
        biased = ar.may_cast(ar.add(scores, ar.given(inputs["bias"])), "scores")
        undecided_TV = undecided_TV | ~ar.leads(biased, chosen_TV)
    if not inputs["renormalize"]:
        weights = scores
    elif inputs["score"] == "sigmoid" or ar.declares("scores"):
        weights = shares(ar, scores, chosen_TV)
    else:
        weights = ar.either(
            lambda: shares(ar, scores, chosen_TV),
            lambda: shares(ar, exponentials, chosen_TV),
        )
    return gate_output(ar, weights, inputs, undecided_TV)


def expert_scores(ar: Arithmetic[V], inputs: Inputs) -> tuple[V, V]:
    """The scores of all experts, and what they are in proportion to."""
    x = ar.given(inputs["x"])
    if inputs["score"] == "softmax":
        exponentials, total, _ = softmax_terms(ar, x)
        return ar.cast(ratio(ar, exponentials, total), "scores"), exponentials
    scores = ar.cast(sigmoid_of(ar, x, inputs["x"] < 0), "scores")
    return scores, scores


def gate_output(ar: Arithmetic[V], weights: V, inputs: Inputs, undecided_TV: torch.Tensor) -> V:
    """Weights times the factor, of the experts that are chosen."""
    if inputs["factor"] != 1:
        weights = ar.mul(ar.cast(weights, "weights"), ar.constant(inputs["factor"]))
    weights = ar.cast(ar.where(inputs["chosen"], weights, 0.0), "output")
    return ar.where(~undecided_TV, weights, torch.nan)


def shares(ar: Arithmetic[V], scores: V, chosen: torch.Tensor) -> V:
    kept = ar.where(chosen, scores, 0.0)
    return ratio(ar, kept, ar.sum(kept))
