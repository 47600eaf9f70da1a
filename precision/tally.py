"""The errors that a search saw: in ULP, their signs, and the used share of the bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from .contract import PrecisionContract
from .oracle import Verdict
from .ulp import ulp

EDGES = (-4.0, -2.0, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0)
"""Where the histogram's bins meet; the first and last reach to infinity."""


@dataclass
class Tally:
    """The errors of all outputs that kept the contract.

    Attributes:
        examples: Calls judged.
        outputs: Output elements judged.
        claimed: Those of which the contract says something.
        utilisation: The largest share of the permitted error that any used.
        largest_ulp: The largest |error| in ULP of the output format.
        histogram: Counts of (|actual| - |truth|) in ULP between `EDGES`, where true values are
            given. Right of 0 is rounded away from zero.
    """

    contract: PrecisionContract
    examples: int = 0
    outputs: int = 0
    claimed: int = 0
    utilisation: float = 0.0
    largest_ulp: float = 0.0
    histogram: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    _near: int = 0
    _near_sum: float = 0.0

    @property
    def bias_ulp(self) -> float:
        """The mean of the signed errors of up to 1 ULP; NaN without true values.

        Near 0 where rounding is to nearest, -1/2 where it is toward zero. Larger errors are
        cancellation's, and a few of them would be all of the mean.
        """
        return self._near_sum / self._near if self._near else math.nan

    def add(self, actual: torch.Tensor, verdict: Verdict, exact: torch.Tensor | None) -> None:
        """Counts one call: its output, the verdict, the true value (fp64) for the histogram."""
        self.examples += 1
        self.outputs += verdict.elements
        self.claimed += verdict.claimed
        self.utilisation = max(self.utilisation, verdict.utilisation)
        if math.isfinite(verdict.max_ulp_error):
            self.largest_ulp = max(self.largest_ulp, verdict.max_ulp_error)
        if exact is not None:
            self._count(actual.detach().to("cpu", torch.float64), exact)

    def _count(self, value: torch.Tensor, exact: torch.Tensor) -> None:
        away = torch.where(exact < 0, exact - value, value - exact)
        errors = away / ulp(exact, self.contract.output_format)
        errors = errors[errors.isfinite()]
        near = errors[errors.abs() <= 1]
        self._near += near.numel()
        self._near_sum += float(near.sum())
        edges = torch.tensor(EDGES, dtype=torch.float64)
        bins = torch.bucketize(errors.flatten(), edges, right=True)
        for i, count in enumerate(torch.bincount(bins, minlength=len(self.histogram)).tolist()):
            self.histogram[i] += count
