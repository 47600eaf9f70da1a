"""The number of draws that a test needs, said before they are made.

Tensor names as in sampler_tests.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, get_args

import torch

from ..sampling import SamplingParams
from ..sampling.batch import Batch
from .distribution import distribution
from .sampler_tests import boundary_share, logit_moments, middles

Mistake = Literal["temperature", "boundary", "shared_noise"]
TESTS = 4
"""`judge` makes so many, each at its part of the rate of false alarms."""
_UNIFORMS = 4096


def draws_needed(
    logits: torch.Tensor,
    params: SamplingParams | Sequence[SamplingParams],
    mistake: Mistake,
    *,
    size: float = 0.01,
    false_alarm_rate: float = 1e-3,
    power: float = 0.9,
) -> int:
    """Returns the draws of each row with which `judge` finds a mistake that often.

    Args:
        logits, params: As for `judge`.
        mistake: "temperature": off by the share `size`. "boundary": the last token of what filters
            keep is never drawn. "shared_noise": one uniform for every row, looked up by id.
        false_alarm_rate: As given to `OracleReport.passes`.

    By the normal limit, so to within some percent. Raises ValueError where no number of draws would
    do: rows that keep one token, or a single row for a mistake between rows.
    """
    if mistake not in get_args(Mistake):
        raise ValueError(f"mistake={mistake!r}: use {', '.join(map(repr, get_args(Mistake)))}")
    if not (0 < false_alarm_rate < 1 and 0 < power < 1 and size):
        raise ValueError("false_alarm_rate and power lie between 0 and 1, and size is not 0")
    size_B = len(logits)
    batch = Batch.make(params, [0] * size_B, None, None, None, size=size_B, seeds_must_agree=False)
    found = distribution(logits, batch)
    p_BV, rate = found.p, false_alarm_rate / TESTS
    if mistake == "boundary":
        return _whole(-math.log(rate), float(boundary_share(p_BV, found.boundary).sum()))
    if mistake == "temperature":
        variance = float(logit_moments(found.x, p_BV)[1].sum())
        shift = size / (1 + size) * math.sqrt(variance)
        return _whole(_reach(rate, power) ** 2, shift**2)
    covariance, variance = _shared(p_BV)
    return _whole(_reach(rate / 3, power) ** 2 * variance, covariance**2)


def _reach(rate: float, power: float) -> float:
    """Standard deviations between no mistake and one that is found that often."""
    normal = NormalDist()
    return normal.inv_cdf(1 - rate / 2) + normal.inv_cdf(power)


def _whole(draws: float, of_one: float) -> int:
    if of_one <= 0:
        raise ValueError("no number of draws shows it: nothing is left to chance in these rows")
    return math.ceil(draws / of_one)


def _shared(p_BV: torch.Tensor) -> tuple[float, float]:
    """Returns what a uniform shared by disjoint pairs of rows makes of the test's sum, and the
    variance that it has without."""
    middle_BV, pairs = middles(p_BV), len(p_BV) // 2
    uniforms = (torch.arange(_UNIFORMS, dtype=torch.float64) + 0.5) / _UNIFORMS
    ends_BV = p_BV.cumsum(1)
    ids_BN = torch.searchsorted(ends_BV, uniforms.expand(len(p_BV), -1).contiguous())
    drawn = middle_BV.gather(1, ids_BN.clamp(max=p_BV.shape[1] - 1))
    covariance = (drawn[0 : 2 * pairs : 2] * drawn[1 : 2 * pairs : 2]).mean(1).sum()
    variance_B = (p_BV * middle_BV.square()).sum(1)
    variance = (variance_B[0 : 2 * pairs : 2] * variance_B[1 : 2 * pairs : 2]).sum()
    return float(covariance), float(variance)
