"""Weights of rewards: what each choice of them gets of every reward, and which are on the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .normalise import Rewards, weighted_sum


@dataclass(frozen=True)
class Trade:
    """One choice of weights.

    Attributes:
        gained: The mean of each reward over the answers that these weights choose.
        is_on_front: Whether no other choice gets as much of every reward and more of one.
    """

    weights: dict[str, float]
    gained: dict[str, float]
    is_on_front: bool


def chosen(rewards: Rewards, weights: Mapping[str, float], groups: Sequence[object]) -> list[int]:
    """Returns the answer with the largest weighted sum of each group, of equals the first.

    `groups` says which answers are of the same prompt.
    """
    best: dict[object, tuple[float, int]] = {}
    for i, (total, group) in enumerate(zip(weighted_sum(rewards, weights), groups, strict=True)):
        if group not in best or total > best[group][0]:
            best[group] = total, i
    return [i for _, i in best.values()]


def trade_offs(rewards: Rewards, groups: Sequence[object], *, steps: int = 4) -> list[Trade]:
    """Returns what every choice of weights on a grid gets, by the best answer of each prompt.

    Args:
        rewards: Of several answers to each prompt, normalised or raw.
        groups: The prompt of each answer.
        steps: Weights are multiples of 1 / steps.
    """
    names = sorted(rewards)
    grid = [dict(zip(names, w, strict=True)) for w in _simplex(len(names), steps)]
    gained = [_gained(rewards, chosen(rewards, weights, groups)) for weights in grid]
    return [
        Trade(weights, own, not any(_dominates(other, own) for other in gained))
        for weights, own in zip(grid, gained, strict=True)
    ]


def _gained(rewards: Rewards, places: Sequence[int]) -> dict[str, float]:
    return {
        name: math.fsum(values[i] for i in places) / len(places) for name, values in rewards.items()
    }


def _dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    pairs = [(one[name], other[name]) for name in other]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _simplex(n: int, steps: int) -> list[tuple[float, ...]]:
    """All n multiples of 1 / steps that add up to 1."""
    counts: list[tuple[int, ...]] = [()]
    for _ in range(n - 1):
        counts = [(*row, c) for row in counts for c in range(steps - sum(row) + 1)]
    return [tuple(c / steps for c in (*row, steps - sum(row))) for row in counts]
