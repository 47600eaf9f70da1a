"""Certifies the (row, feature) pairs that cannot have flipped between two runs.

Shapes: N rows, F features, P pairs of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .limits import Limit


@dataclass(frozen=True, eq=False)
class CertifiedPairs:
    """The features of each row that a change of precision could flip first, and what is certain.

    Attributes:
        features: int64 [N, P], by how close they come to being active, the closest first.
        kept: Bool [N, P]; False fills rows that have fewer pairs.
        certified: Bool [N, P], pairs that cannot have flipped.
        margins: fp64 [N, F], how far each feature's score alone would have to move.
    """

    features: torch.Tensor
    kept: torch.Tensor
    certified: torch.Tensor
    margins: torch.Tensor

    def smallest_margin(self) -> torch.Tensor:
        """Returns the smallest margin of each row's pairs, fp64 [N]."""
        margin = self.margins.gather(1, self.features).masked_fill(~self.kept, torch.inf)
        return margin.amin(1)


def certify(
    scores: torch.Tensor, active: torch.Tensor, bound: torch.Tensor, limit: Limit
) -> CertifiedPairs:
    """Returns the pairs of each row: its active features and as many next ones as `limit` says.

    Args:
        scores: fp32 or fp64 [N, F], run a's.
        active: Bool [N, F], run a's active features.
        bound: fp64 [N, F], how far each score can differ in run b, as `Movement` says.
    """
    scores, n_features = scores.double(), scores.shape[1]
    n_active = active.sum(1)
    n_pairs = (n_active + limit.n_next(n_active)).clamp(max=n_features)
    width = int(n_pairs.max()) if len(n_pairs) else 0
    features = limit.order(scores).topk(width).indices
    kept = torch.arange(width, device="cpu") < n_pairs[:, None]
    sure = limit.certain(scores, bound)
    margins = limit.margins(scores, active)
    # A feature is certified as what it is in run a, or the bound does not hold.
    certain = (sure.active & active) | (sure.inactive & ~active)
    return CertifiedPairs(
        features=features,
        kept=kept,
        certified=certain.gather(1, features) & kept,
        margins=margins,
    )
