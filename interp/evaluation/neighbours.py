"""Features of one dictionary that another has, too.

Shapes: F and G features of two dictionaries, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..dictionaries import Dictionary, kernels

NEAR = 0.7
_COSINES_AT_A_TIME = 1 << 24


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each feature of a dictionary, the feature of another whose decoder row is nearest.

    Attributes:
        cosine: fp32 [F], the largest cosine.
        index: int64 [F], the feature it belongs to; the first of equal ones.
    """

    cosine: torch.Tensor
    index: torch.Tensor

    @property
    def share_near(self) -> float:
        """The part of the features with a neighbour of cosine above 0.7."""
        return int((self.cosine > NEAR).sum()) / len(self.cosine)

    @property
    def median(self) -> float:
        """The median cosine."""
        return float(self.cosine.double().quantile(0.5))

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures, without those of each feature."""
        return {"share_near": self.share_near, "median": self.median}


def nearest_features(a: Dictionary, b: Dictionary) -> Neighbours:
    """Returns the nearest feature in b of each feature of a, by the cosine of decoder rows.

    At most 2^24 cosines are in memory at once. A feature that writes nothing has cosine 0.

    Raises ValueError for dictionaries that write rows of different widths.
    """
    if a.cfg.d_out != b.cfg.d_out:
        raise ValueError(
            f"nearest_features: decoder rows of {a.cfg.d_out} and of {b.cfg.d_out} values: "
            "dictionaries of different widths have no features in common"
        )
    rows_Fd, rows_Gd = _unit_decoder(a), _unit_decoder(b)
    cosines, indices = [], []
    step = max(1, _COSINES_AT_A_TIME // len(rows_Gd))
    for at in range(0, len(rows_Fd), step):
        nearest = kernels.top_k(kernels.dense(rows_Fd[at : at + step], rows_Gd, None), 1)
        cosines.append(nearest.values[:, 0])
        indices.append(nearest.indices[:, 0].long())
    return Neighbours(torch.cat(cosines), torch.cat(indices))


def _unit_decoder(dictionary: Dictionary) -> torch.Tensor:
    rows = dictionary.W_dec.detach().float().clone()
    kernels.unit_rows_(rows)
    return rows
