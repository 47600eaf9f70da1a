"""Bounds of fp32 for TRL's losses and their gradients, in the order of its and torch's operations.

Each returns the loss and its gradient, exact values with bounds of the error in fp32. Tensor names:
B sequences, chosen before rejected, P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .running_error import F64, Rounded, logistic_loss
from .trl_losses import Case

Arrays = Mapping[str, F64]
Both = tuple[Rounded, Rounded]
exact, constant = Rounded.exact, Rounded.constant


def _sft(case: Case, inputs: Arrays) -> Both:
    scored = inputs["scored"] != 0
    n = exact(scored.sum())
    each = (-exact(inputs["logprobs"])).where(scored)
    return each.sum() / n, (exact(np.full(scored.shape, -1.0)) / n).where(scored)


def _reward(case: Case, inputs: Arrays) -> Both:
    chosen, rejected = (exact(x) for x in np.split(inputs["rewards"], 2))
    gap = chosen - rejected
    if case.settings.get("margin"):
        gap = gap - exact(inputs["margin"])
    each, slope = logistic_loss(gap)
    n = exact(len(each.value))
    loss, by_chosen = each.sum() / n, slope / n
    by_rejected = -by_chosen
    if "centering" in case.settings:
        weight, both = constant(case.settings["centering"]), chosen + rejected
        loss = loss + weight * ((both * both).sum() / n)
        lean = (weight / n) * (exact(2.0) * both)
        by_chosen, by_rejected = by_chosen + lean, by_rejected + lean
    return loss, _joined(by_chosen, by_rejected)


def _dpo(case: Case, inputs: Arrays) -> Both:
    scored = inputs["scored"] != 0
    own = exact(inputs["logprobs"]).where(scored).sum(1)
    scores = own - exact(inputs["reference"]).where(scored).sum(1)
    shares = exact(np.ones(len(scored)))
    if case.settings["loss_type"] != "sigmoid":
        scores, shares = scores / exact(scored.sum(1)), shares / exact(scored.sum(1))
    pairs = len(scored) // 2
    delta, beta = scores[:pairs] - scores[pairs:], constant(case.settings["beta"])
    if case.settings["loss_type"] == "ipo":
        ahead = delta - constant(1 / (2 * case.settings["beta"]))
        each, slope = ahead * ahead, exact(2.0) * ahead
    else:
        each, slope = logistic_loss(beta * delta)
        slope = slope * beta
    slope = slope / exact(pairs)
    by_sums = _joined(slope, -slope) * shares
    gradient = Rounded(by_sums.value[:, None] * scored, by_sums.error[:, None] * scored)
    return each.sum() / exact(pairs), gradient


def _clipped(ratio: Rounded, advantages: Rounded, case: Case) -> Both:
    """-min(ratio * A, clipped ratio * A), and its derivative by the log-ratio."""
    free = ratio * advantages
    low, high = 1 - case.settings["epsilon_low"], 1 + case.settings["epsilon_high"]
    kept = ratio.clip(low, high) * advantages
    _assert_apart(ratio, low, high)
    return -free.minimum(kept), (-free).where(free.value <= kept.value)


def _assert_apart(ratio: Rounded, *edges: float) -> None:
    """A ratio on the edge could be clipped in one precision and not in the other."""
    for edge in edges:
        assert (np.abs(ratio.value - edge) > 2 * ratio.error + 1e-7).all()


def _grpo(case: Case, inputs: Arrays) -> Both:
    scored = inputs["scored"] != 0
    x = exact(np.where(scored, inputs["logprobs"], 0.0))
    old = exact(np.where(scored, inputs["old"], 0.0))
    each, slope = _clipped((x - old).exp(), exact(inputs["advantages"][:, None]), case)
    if case.settings["beta"]:
        beta = constant(case.settings["beta"])
        gap = exact(np.where(scored, inputs["reference"], 0.0)) - x
        each = each + beta * ((gap.exp() - gap) - exact(1.0))
        slope = _sum(slope, -(beta * gap.exp()), beta)
    each, slope = each.where(scored), slope.where(scored)
    if case.settings["loss_type"] == "grpo":
        lengths, n = exact(scored.sum(1)), exact(len(scored))
        weight = (exact(1.0) / n) / lengths
        gradient = slope * Rounded(weight.value[:, None], weight.error[:, None])
        return (each.sum(1) / lengths).sum() / n, gradient
    n = exact(case.settings.get("count", scored.sum()))
    return each.sum() / n, slope * (exact(1.0) / n)


def _rloo(case: Case, inputs: Arrays) -> Both:
    scored = inputs["scored"] != 0
    sums = (exact(inputs[name]).where(scored).sum(1) for name in ("logprobs", "old"))
    gap = next(sums) - next(sums)
    each, slope = _clipped(gap.exp(), exact(inputs["advantages"]), case)
    n = exact(len(scored))
    slope = slope / n
    gradient = Rounded(slope.value[:, None] * scored, slope.error[:, None] * scored)
    return each.sum() / n, gradient


def _sum(*terms: Rounded) -> Rounded:
    """Terms that autograd may add in any order."""
    values = np.stack(np.broadcast_arrays(*(x.value for x in terms)))
    errors = np.stack(np.broadcast_arrays(*(x.error for x in terms)))
    return Rounded(values, errors).sum(0)


def _joined(first: Rounded, second: Rounded) -> Rounded:
    values = np.concatenate([first.value, second.value])
    return Rounded(values, np.concatenate([first.error, second.error]))


BOUNDS: Mapping[str, Callable[[Case, Arrays], Both]] = {
    "sft": _sft,
    "reward": _reward,
    "dpo": _dpo,
    "grpo": _grpo,
    "rloo": _rloo,
}
