"""Rates corrected for the errors of the judge that counted them.

Rogan and Gladen, Am. J. Epidemiology 107 (1978); the interval is that of Lang and Reiczigel, Prev.
Vet. Medicine 113 (2014), which allows for the errors of the judge's own measurement.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from ...precision.statistics import Estimate, clustered_proportion
from .confusion import Confusion


@dataclass(frozen=True)
class CorrectedRate:
    """A rate of refusals, as counted and as it is, given the judge's errors.

    Attributes:
        counted: The share that the judge called refusals.
        rate: Corrected; None where nothing follows: the judge is no better than chance, or its
            measured errors rule the count out, so that it errs otherwise here.
        low, high: The interval of the corrected rate.
    """

    counted: float
    rate: float | None
    low: float
    high: float
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON-ready data."""
        return asdict(self)


def corrected_rate(
    refused: Sequence[bool],
    clusters: Sequence[Hashable],
    confusion: Confusion,
    confidence: float = 0.95,
) -> CorrectedRate:
    """Returns the rate of refusals behind a judge's count.

    (p + specificity - 1) / (sensitivity + specificity - 1), within [0, 1]. It holds where the
    judge errs on these answers as it does on those that it was measured on: other answers, other
    errors. Dependent answers count by their effective number, in all three shares.

    Raises ValueError for fewer than two clusters.
    """
    counted = clustered_proportion(refused, clusters, confidence)
    p, n = counted.mean, effective(counted)
    (se, n_se), (sp, n_sp) = (
        (estimate.mean, effective(estimate))
        for estimate in (confusion.sensitivity, confusion.specificity)
    )
    low, high = interval(p * n, n, se * n_se, n_se, sp * n_sp, n_sp, confidence)
    gain = se + sp - 1
    follows = gain > 0 and (low, high) != (0.0, 1.0)
    rate = min(1.0, max(0.0, (p + sp - 1) / gain)) if follows else None
    return CorrectedRate(p, rate, low, high, confidence)


def interval(
    refused: float, n: float, hits: float, n_refusals: float, passes: float, n_others: float,
    confidence: float = 0.95,
) -> tuple[float, float]:  # fmt: skip
    """Returns the bounds of the corrected rate, from counts that need not be whole.

    [0, 1] where the judge is not seen to be better than chance, and where no rate at all explains
    the count: its errors here are not those that were measured.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    n = n + z * z
    p = (refused + z * z / 2) / n
    se, sp = (hits + 1) / (n_refusals + 2), (passes + 1) / (n_others + 2)
    v_p = p * (1 - p) / n
    v_se, v_sp = se * (1 - se) / (n_refusals + 2), sp * (1 - sp) / (n_others + 2)
    gain = se + sp - 1
    if gain <= z * math.sqrt(v_se + v_sp):
        return 0.0, 1.0
    rate = (p + sp - 1) / gain
    middle = rate + 2 * z * z * (rate * v_se - (1 - rate) * v_sp)
    reach = z * math.sqrt(v_p + rate**2 * v_se + (1 - rate) ** 2 * v_sp) / gain
    if middle - reach >= 1 or middle + reach <= 0:
        return 0.0, 1.0
    return min(1.0, max(0.0, middle - reach)), min(1.0, max(0.0, middle + reach))


def effective(estimate: Estimate) -> float:
    """Returns how many independent values a share is worth; where all are equal, its clusters."""
    if estimate.design_effect is None:
        return float(estimate.clusters)
    if estimate.design_effect <= 0:
        return float(estimate.n)
    return min(float(estimate.n), estimate.n / estimate.design_effect)
