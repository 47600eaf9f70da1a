"""A closed bound for the gate of experts, and its spread."""

from __future__ import annotations

import torch

from ...arithmetic.rounding_model import RoundingModel
from ..elementwise.bound import sigmoid_error
from ..softmax.bound import softmax_error, softmax_underflow

Tensor = torch.Tensor


def moe_gate_bound(
    model: RoundingModel,
    y: Tensor,
    x: Tensor,
    k: int,
    score: str,
    renormalize: bool,
    factor: float,
    bias: Tensor | None,
    chosen: Tensor,
    undecided: Tensor,
) -> Tensor:
    """A score's error; of a share that of the sum of shares, too, which cannot cancel."""
    r = x.double()
    if score == "softmax":
        p = r.softmax(-1)
        error = softmax_error(model, r) * p + softmax_underflow(model, p)
    else:
        p, error = r.sigmoid(), sigmoid_error(model, r)
    error = model.cast("scores", p, error)
    unsaid = undecided if bias is None else undecided | ~_leading(model, p, error, bias, chosen)
    error, weights = error * chosen, p * chosen
    if renormalize:
        total, lost = weights.sum(-1, keepdim=True), error.sum(-1, keepdim=True)
        growth = (1 + model.reduction(x.shape[-1], exact_terms=True)) * (1 + model.steps(3)) - 1
        sums = (lost + growth * (total + lost) + x.shape[-1] * model.underflow) / total
        inverse = torch.where(sums < 1, 1 / (1 - sums.clamp(max=1.0)), torch.inf)
        error = (error + weights * sums + model.steps(3) * (weights + error)) / total * inverse
        weights = weights / total
        error = error + model.underflow
    if factor != 1:
        error = model.cast("weights", weights, error) * abs(factor)
        error = error + model.steps(2) * (weights * abs(factor) + error) + model.underflow
    bound = model.cast("output", y, error.masked_fill(~chosen, 0.0))
    return bound.masked_fill(unsaid, torch.inf)


def _leading(
    model: RoundingModel, scores: Tensor, error: Tensor, bias: Tensor, chosen: Tensor
) -> Tensor:
    """Whether rounding leaves the chosen ahead of the others, once a bias is added."""
    added = bias.double()
    corrected = scores + added
    off = error + model.flushed(added)
    off = off + model.steps(1) * (corrected.abs() + off) + model.underflow
    off = model.cast("scores", corrected, off)
    least = (corrected - off).masked_fill(~chosen, torch.inf).amin(-1, keepdim=True)
    return least > (corrected + off).masked_fill(chosen, -torch.inf).amax(-1, keepdim=True)


def moe_gate_spread(
    y: Tensor,
    x: Tensor,
    k: int,
    score: str,
    renormalize: bool,
    factor: float,
    bias: Tensor | None,
    chosen: Tensor,
    undecided: Tensor,
) -> Tensor:
    """By the triangle inequality, as of a softmax over all experts: at most twice the truth."""
    scores = x.double().abs()
    own = scores if score == "softmax" else scores * (-x.double()).sigmoid()
    weights = x.double().softmax(-1) if score == "softmax" else y.abs() / abs(factor or 1.0)
    mean = (weights * own).sum(-1, keepdim=True)
    if renormalize:
        mean = mean.maximum((y.abs() / abs(factor or 1.0) * own).sum(-1, keepdim=True))
    moved = own + (mean if renormalize or score == "softmax" else 0.0)
    return (y.abs() * moved).masked_fill(undecided, 0.0)
