"""Rewards into advantages, in fp64 with exact sums."""

from __future__ import annotations

import math

import numpy as np
import torch

from .fixed_math import F64, total
from .loss_node import array


def group_advantages(rewards_R: torch.Tensor, n: int, *, scale: bool = True) -> torch.Tensor:
    """Returns (reward - mean of its group) / (standard deviation + 1e-4), fp64 [R].

    Groups are n consecutive rows; deviations are the sample's (n - 1), as in TRL. A group whose
    rewards are all equal has advantages of 0. `scale=False` leaves the division out (Dr. GRPO).
    """
    groups = _groups(rewards_R, n)
    found = []
    for group in groups:
        gap = group - total(group) / n
        deviation = math.sqrt(total(gap * gap) / (n - 1)) if n > 1 else 0.0
        found.append(gap / (deviation + 1e-4) if scale else gap)
    return torch.from_numpy(np.concatenate(found))


def leave_one_out(rewards_R: torch.Tensor, n: int) -> torch.Tensor:
    """Returns each reward less the mean of its group's others, fp64 [R]; n is 2 or more."""
    if n < 2:
        raise ValueError(f"n = {n}: a baseline needs another sample of the same prompt")
    groups = _groups(rewards_R, n)
    found = [group - (total(group) - group) / (n - 1) for group in groups]
    return torch.from_numpy(np.concatenate(found))


def gae(
    rewards_BP: torch.Tensor,
    values_BP: torch.Tensor,
    scored_BP: torch.Tensor,
    *,
    gamma: float = 1.0,
    smoothing: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns generalized advantage estimates and returns, fp64 [B, P] (Schulman et al. 2016).

    `smoothing` is the paper's lambda. A sequence ends with its last scored token; 0 elsewhere.
    """
    rewards, values = array(rewards_BP), array(values_BP)
    advantages = np.zeros_like(values)
    for b, scored in enumerate(scored_BP.tolist()):
        ahead = following = 0.0
        for p in reversed([p for p, kept in enumerate(scored) if kept]):
            surprise = (rewards[b, p] + gamma * following) - values[b, p]
            ahead = surprise + (gamma * smoothing) * ahead
            advantages[b, p], following = ahead, values[b, p]
    returns = np.where(scored_BP.numpy(), advantages + values, 0.0)
    return torch.from_numpy(advantages), torch.from_numpy(returns)


def whitened(advantages_BP: torch.Tensor, scored_BP: torch.Tensor) -> torch.Tensor:
    """Returns (advantage - mean) / (standard deviation + 1e-8) of scored tokens, fp64 [B, P]."""
    x, scored = array(advantages_BP), scored_BP.numpy()
    n = int(scored.sum())
    gap = np.where(scored, x - total(x[scored]) / n, 0.0)
    deviation = math.sqrt(total(gap * gap) / n)
    return torch.from_numpy(gap / (deviation + 1e-8))


def _groups(rewards_R: torch.Tensor, n: int) -> F64:
    """[groups, n]. Raises ValueError for rewards that are no numbers, or no whole groups."""
    rewards = array(rewards_R)
    if rewards.ndim != 1 or n < 1 or rewards.size % n:
        raise ValueError(f"rewards: {list(rewards.shape)} are no groups of {n}")
    if not bool(np.isfinite(rewards).all()):
        at = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(f"rewards: {rewards[at]} for row {at}, expected finite numbers")
    return rewards.reshape(-1, n)
