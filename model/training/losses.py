"""Losses as pure functions of log-probabilities, in fp64 with fixed bits (docs/numerics.md).

Each returns an fp64 scalar with a gradient. `count` is a mean's denominator: that of the global
batch, where this is a microbatch of it; None counts what is there. Tensor names: B sequences or
pairs, P positions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .fixed_math import F64, exp, logistic, softplus, total
from .loss_node import array, loss_of

Tensor = torch.Tensor
Mask = npt.NDArray[np.bool_]
Mean = Literal["sequence", "token"]
Preference = Literal["sigmoid", "ipo"]


def sequence_logprobs(logprobs_BP: Tensor, scored_BP: Tensor) -> Tensor:
    """Returns each sequence's sum over its scored tokens, fp64 [B], exact and rounded once."""
    x_BP, scored = array(logprobs_BP), _scored(logprobs_BP, scored_BP)
    sums_B = np.array([total(row[kept]) for row, kept in zip(x_BP, scored, strict=True)])
    return loss_of(sums_B, (logprobs_BP, scored.astype(np.float64)))


def sft(logprobs_BP: Tensor, scored_BP: Tensor, *, count: int | None = None) -> Tensor:
    """Returns the mean of -ln p over the scored tokens (next-token cross entropy)."""
    x, scored = array(logprobs_BP), _scored(logprobs_BP, scored_BP)
    n = int(scored.sum()) if count is None else count
    return loss_of(-total(x[scored]) / n, (logprobs_BP, np.where(scored, -1.0 / n, 0.0)))


def reward(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    labels_B: Tensor | None = None,
    margin_B: Tensor | None = None,
    centering: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """Returns Bradley and Terry's loss of pairs of rewards (1952).

    Args:
        labels_B: The probability that the chosen one is better; None for certainty.
        margin_B: What the chosen reward must be ahead by (Touvron et al. 2023).
        centering: Weight of the mean square of a pair's sum, which keeps rewards about zero
            (Eisenstein et al. 2023).
    """
    each_B = reward_each(
        chosen_B, rejected_B, labels_B=labels_B, margin_B=margin_B, centering=centering
    )
    return _mean(each_B, count)


def reward_each(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    labels_B: Tensor | None = None,
    margin_B: Tensor | None = None,
    centering: float = 0.0,
) -> Tensor:
    """Returns each pair's loss, fp64 [B]; arguments are `reward`'s."""
    c, r = array(chosen_B), array(rejected_B)
    gap = c - r if margin_B is None else (c - r) - array(margin_B)
    each, slope = _preference(gap, _labels(labels_B, gap))
    each, lean = each + centering * ((c + r) * (c + r)), 2.0 * centering * (c + r)
    return loss_of(each, (chosen_B, slope + lean), (rejected_B, lean - slope))


def dpo(
    chosen_B: Tensor,
    rejected_B: Tensor,
    reference_chosen_B: Tensor,
    reference_rejected_B: Tensor,
    *,
    beta: float = 0.1,
    kind: Preference = "sigmoid",
    labels_B: Tensor | None = None,
    lengths_B: tuple[Tensor, Tensor] | None = None,
    count: int | None = None,
) -> Tensor:
    """Returns the loss of Direct Preference Optimization (Rafailov et al. 2023).

    Args:
        chosen_B, rejected_B, ...: Sums of log-probabilities, as `sequence_logprobs` has them.
        kind: "sigmoid", or "ipo" (Azar et al. 2023).
        labels_B: The probability that the chosen one is better, of each pair.
        lengths_B: Scored tokens of both, which their log-ratios are divided by (Tülu 3's
            `dpo_norm`; TRL's "ipo" always does).
    """
    each_B = dpo_each(
        chosen_B,
        rejected_B,
        reference_chosen_B,
        reference_rejected_B,
        beta=beta,
        kind=kind,
        labels_B=labels_B,
        lengths_B=lengths_B,
    )
    return _mean(each_B, count)


def dpo_each(
    chosen_B: Tensor,
    rejected_B: Tensor,
    reference_chosen_B: Tensor,
    reference_rejected_B: Tensor,
    *,
    beta: float = 0.1,
    kind: Preference = "sigmoid",
    labels_B: Tensor | None = None,
    lengths_B: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Returns each pair's loss, fp64 [B]; arguments are `dpo`'s."""
    margins = dpo_margins(
        chosen_B, rejected_B, reference_chosen_B, reference_rejected_B, lengths_B=lengths_B
    )
    labels = _labels(labels_B, margins)
    if kind == "sigmoid":
        each, slope = _preference(beta * margins, labels)
        slope = beta * slope
    else:
        target = 1.0 / (2.0 * beta)
        ahead, behind = margins - target, margins + target
        each = labels * (ahead * ahead) + (1.0 - labels) * (behind * behind)
        slope = 2.0 * (labels * ahead + (1.0 - labels) * behind)
    shares = _shares(lengths_B, margins)
    return loss_of(each, (chosen_B, slope * shares[0]), (rejected_B, -(slope * shares[1])))


def dpo_margins(
    chosen_B: Tensor,
    rejected_B: Tensor,
    reference_chosen_B: Tensor,
    reference_rejected_B: Tensor,
    *,
    lengths_B: tuple[Tensor, Tensor] | None = None,
) -> F64:
    """Returns how far the chosen answer's log-ratio is ahead of the rejected one's, fp64 [B]."""
    chosen = array(chosen_B) - array(reference_chosen_B)
    rejected = array(rejected_B) - array(reference_rejected_B)
    shares = _shares(lengths_B, chosen)
    return chosen * shares[0] - rejected * shares[1]


def _mean(each_B: Tensor, count: int | None) -> Tensor:
    each = array(each_B)
    n = each.size if count is None else count
    return loss_of(total(each) / n, (each_B, np.full_like(each, 1.0 / n)))


def _shares(lengths_B: tuple[Tensor, Tensor] | None, like: F64) -> tuple[F64, F64]:
    """What log-ratios are multiplied by."""
    if lengths_B is None:
        return np.ones_like(like), np.ones_like(like)
    return 1.0 / array(lengths_B[0]), 1.0 / array(lengths_B[1])


def grpo(
    logprobs_BP: Tensor,
    old_logprobs_BP: Tensor,
    advantages_B: Tensor,
    scored_BP: Tensor,
    *,
    epsilon: tuple[float, float] = (0.2, 0.2),
    beta: float = 0.0,
    reference_BP: Tensor | None = None,
    mean: Mean = "sequence",
    count: int | None = None,
) -> Tensor:
    """Returns the clipped loss of Group Relative Policy Optimization (Shao et al. 2024).

    Args:
        advantages_B: Of each sequence, or [B, P] of each token.
        epsilon: How far the ratio may fall and rise before its gradient stops.
        beta: Weight of the KL divergence to the reference, by exp(d) - d - 1 (Schulman 2020).
        mean: "sequence": over tokens, then over sequences. "token": over all scored tokens.
    """
    x, scored = array(logprobs_BP), _scored(logprobs_BP, scored_BP)
    weights = _token_weights(scored, mean, count)
    each, slope = _clipped(x, array(old_logprobs_BP), _per_token(advantages_B, x), epsilon)
    if beta:
        if reference_BP is None:
            raise ValueError("beta: needs the reference's log-probabilities")
        gap = array(reference_BP) - x
        ratio = exp(np.where(scored, gap, 0.0))
        each = each + beta * ((ratio - gap) - 1.0)
        slope = slope + beta * (1.0 - ratio)
    kept = np.where(scored, weights * slope, 0.0)
    return loss_of(total((weights * each)[scored]), (logprobs_BP, kept))


def rloo(
    logprobs_BP: Tensor,
    old_logprobs_BP: Tensor,
    advantages_B: Tensor,
    scored_BP: Tensor,
    *,
    epsilon: tuple[float, float] = (0.2, 0.2),
    count: int | None = None,
) -> Tensor:
    """Returns the clipped loss of REINFORCE with leave-one-out baselines (Ahmadian et al. 2024).

    The ratio is the whole sequence's; advantages are `advantages.leave_one_out`'s.
    """
    scored = _scored(logprobs_BP, scored_BP)
    gap_BP = np.where(scored, array(logprobs_BP) - array(old_logprobs_BP), 0.0)
    gap_B = np.array([total(row) for row in gap_BP])
    each, slope = _clipped(gap_B, np.zeros_like(gap_B), array(advantages_B), epsilon)
    n = len(gap_B) if count is None else count
    return loss_of(total(each) / n, (logprobs_BP, np.where(scored, (slope / n)[:, None], 0.0)))


def ppo(
    logprobs_BP: Tensor,
    old_logprobs_BP: Tensor,
    advantages_BP: Tensor,
    scored_BP: Tensor,
    *,
    values_BP: Tensor,
    old_values_BP: Tensor,
    returns_BP: Tensor,
    epsilon: float = 0.2,
    value_epsilon: float = 0.2,
    value_weight: float = 0.1,
    count: int | None = None,
) -> Tensor:
    """Returns the loss of Proximal Policy Optimization (Schulman et al. 2017), a mean over tokens.

    The values' part is half the larger of two squared errors, one of them of values kept within
    `value_epsilon` of the old ones.
    """
    x, scored = array(logprobs_BP), _scored(logprobs_BP, scored_BP)
    advantages = array(advantages_BP)
    each, slope = _clipped(x, array(old_logprobs_BP), advantages, (epsilon, epsilon))
    v, old, aim = array(values_BP), array(old_values_BP), array(returns_BP)
    near = np.clip(v, old - value_epsilon, old + value_epsilon)
    free, kept = (v - aim) * (v - aim), (near - aim) * (near - aim)
    v_slope = np.where(free >= kept, v - aim, np.where(near == v, near - aim, 0.0))
    n = int(scored.sum()) if count is None else count
    each = each + (0.5 * value_weight) * np.maximum(free, kept)
    policy = np.where(scored, slope / n, 0.0)
    critic = np.where(scored, value_weight * v_slope / n, 0.0)
    return loss_of(total(each[scored]) / n, (logprobs_BP, policy), (values_BP, critic))


def _clipped(x: F64, old: F64, advantages: F64, epsilon: tuple[float, float]) -> tuple[F64, F64]:
    """-min(ratio * A, clipped ratio * A), and its derivative by x."""
    ratio = exp(x - old)
    free = ratio * advantages
    kept = np.clip(ratio, 1.0 - epsilon[0], 1.0 + epsilon[1]) * advantages
    return -np.minimum(free, kept), np.where(free <= kept, -free, 0.0)


def _preference(gap: F64, labels: F64) -> tuple[F64, F64]:
    """-(p log s(gap) + (1 - p) log s(-gap)), s being logistic, and its derivative by the gap."""
    loss = labels * softplus(-gap) + (1.0 - labels) * softplus(gap)
    return loss, (1.0 - labels) * logistic(gap) - labels * logistic(-gap)


def _labels(labels_B: Tensor | None, like: F64) -> F64:
    if labels_B is None:
        return np.ones_like(like)
    labels = array(labels_B)
    if labels.shape != like.shape or not bool(((labels >= 0) & (labels <= 1)).all()):
        raise ValueError(f"labels: expected {list(like.shape)} probabilities in [0, 1]")
    return labels


def _token_weights(scored: Mask, mean: Mean, count: int | None) -> F64:
    lengths_B = scored.sum(1)
    if mean == "token":
        return np.full(scored.shape, 1.0 / (int(lengths_B.sum()) if count is None else count))
    n = len(scored) if count is None else count
    return np.broadcast_to(1.0 / (np.maximum(lengths_B, 1) * float(n))[:, None], scored.shape)


def _per_token(advantages: Tensor, like: F64) -> F64:
    found = array(advantages)
    return np.broadcast_to(found[:, None] if found.ndim == 1 else found, like.shape)


def _scored(logprobs_BP: Tensor, scored_BP: Tensor) -> Mask:
    """The mask. Raises ValueError where it has another shape, or leaves nothing."""
    if scored_BP.dtype is not torch.bool or scored_BP.shape != logprobs_BP.shape:
        raise ValueError(
            f"scored: expected bool {list(logprobs_BP.shape)}, got {scored_BP.dtype} "
            f"{list(scored_BP.shape)}"
        )
    if not bool(scored_BP.any()):
        raise ValueError("scored: no token is left, so there is no loss")
    return np.asarray(scored_BP.numpy())
