"""The limits that a feature's score has to exceed for the feature to be active.

Shapes: N rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from ...model.ops.kernels import exp
from ..dictionaries import Dictionary

_U = 2.0**-24
_TINY = 2.0**-149


class Certain(NamedTuple):
    """The facts about a run whose scores lie within a bound of given ones.

    Attributes:
        active: Bool [N, F], the features that are active whatever the scores are.
        inactive: Bool [N, F], those that are not.
    """

    active: torch.Tensor
    inactive: torch.Tensor


class Limit(Protocol):
    """The limits of scores. Scores and bounds are fp64 [N, F]."""

    def order(self, scores: torch.Tensor) -> torch.Tensor:
        """Returns [N, F]: the larger, the closer to being active, or the surer of it."""
        ...

    def n_next(self, n_active_N: torch.Tensor) -> torch.Tensor:
        """Returns int64 [N]: how many features next to the active ones a row is judged by."""
        ...

    def margins(self, scores: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Returns [N, F]: how far each score would have to move alone for its feature to flip."""
        ...

    def certain(self, scores: torch.Tensor, bound: torch.Tensor) -> Certain:
        """Returns what holds of every run whose scores lie within `bound` of these."""
        ...


@dataclass(frozen=True)
class Rank:
    """A feature is active if its score is positive and among the k largest of its row.

    Attributes:
        by_size: Whether scores count by their size, whatever their sign.
    """

    k: int
    by_size: bool = False

    def order(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.abs() if self.by_size else scores

    def n_next(self, n_active_N: torch.Tensor) -> torch.Tensor:
        return torch.full_like(n_active_N, self.k)

    def margins(self, scores: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        scores = self.order(scores)
        last, next_ = self._largest(scores)
        return torch.where(active, scores - next_.clamp(min=0), last.clamp(min=0) - scores)

    def certain(self, scores: torch.Tensor, bound: torch.Tensor) -> Certain:
        """A feature stays if fewer than k others can come to its lowest score, which is below the
        (k + 1)-th largest of all highest scores; it stays out if k others cannot fall to its
        highest."""
        scores = self.order(scores)
        low, high = scores - bound, scores + bound
        active = low > self._largest(high)[1].clamp(min=0)
        inactive = (high < self._largest(low)[0]) | (high <= 0)
        return Certain(active, inactive)

    def _largest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The k-th and the next largest of each row, [N, 1] each; the next is minus infinity where
        all features are among the k."""
        found = x.topk(min(self.k + 1, x.shape[1])).values
        last = found[:, self.k - 1 : self.k]
        return last, found[:, -1:] if found.shape[1] > self.k else last.new_tensor(-torch.inf)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """A feature is active if its score is above a threshold of its own.

    Attributes:
        low, high: fp64 [F]: the feature is active above `high` and not up to `low`. They differ
            where rounding behind the score, in a gated SAE's magnitude, decides in between.
    """

    low: torch.Tensor
    high: torch.Tensor

    def order(self, scores: torch.Tensor) -> torch.Tensor:
        return scores - self.low

    def n_next(self, n_active_N: torch.Tensor) -> torch.Tensor:
        return n_active_N.clamp(min=1)

    def margins(self, scores: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        return torch.where(active, scores - self.low, self.high - scores)

    def certain(self, scores: torch.Tensor, bound: torch.Tensor) -> Certain:
        return Certain(scores - bound > self.high, scores + bound <= self.low)


def limit_of(dictionary: Dictionary) -> Limit:
    """Returns what the scores of a dictionary's encoder are held against."""
    cfg = dictionary.cfg
    if cfg.selects_top_k:
        assert cfg.k is not None
        return Rank(cfg.k, cfg.is_signed)
    if cfg.architecture == "gated":
        return _gated(dictionary)
    level = torch.zeros(cfg.d_sae, dtype=torch.float64, device="cpu")
    if cfg.has_threshold:
        level = dictionary.threshold.detach().double().clamp(min=0)
    return Thresholds(level, level)


def _gated(dictionary: Dictionary) -> Thresholds:
    """p + b_gate > 0, whose sign fp32 addition keeps, and fl(fl(p s) + b_mag) > 0, that is
    fl(p s) > -b_mag, where fl(p s) lies within u |p s| and half the smallest subnormal of p s."""
    gate = -dictionary.b_gate.detach().double()
    scale = exp(dictionary.r_mag.detach()).double()
    level = -dictionary.b_mag.detach().double() / scale
    slack = 4 * _U * level.abs() + _TINY / scale
    return Thresholds(torch.maximum(gate, level - slack), torch.maximum(gate, level + slack))
