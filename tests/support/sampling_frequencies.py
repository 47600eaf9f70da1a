"""How often tokens are drawn, held against how often they should be."""

from __future__ import annotations

import math

import numpy as np
import torch
from bitlens.model.sampling import SamplingParams, sample

ROWS = 20_000


def frequencies(row_V: torch.Tensor, p: SamplingParams, draws: int) -> np.ndarray:
    """How often each token is drawn, a position a draw."""
    counts = np.zeros(len(row_V), dtype=np.int64)
    for start in range(0, draws, ROWS):
        x = row_V.expand(ROWS, -1)
        tokens = sample(x, p, positions=torch.arange(start, start + ROWS)).tokens
        counts += np.bincount(tokens.numpy(), minlength=len(row_V))
    return counts


def assert_fits(counts: np.ndarray, probability: np.ndarray) -> None:
    """Chi-squared within 5 standard deviations, and KL as small as chance makes it."""
    draws = counts.sum()
    assert counts[probability == 0].sum() == 0
    inside = probability * draws >= 5
    observed = np.append(counts[inside], counts[~inside].sum())
    expected = np.append(probability[inside], probability[~inside].sum()) * draws
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    chi_squared = float(((observed - expected) ** 2 / expected).sum())
    assert abs(chi_squared - freedom) < 5 * math.sqrt(2 * freedom) + 5
    seen = observed > 0
    kl = float((observed[seen] / draws * np.log(observed[seen] / expected[seen])).sum())
    assert kl < (freedom + 5 * math.sqrt(2 * freedom) + 5) / (2 * draws) * 1.1
