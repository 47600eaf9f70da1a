"""The frequency of each feature."""

from __future__ import annotations

import torch

from ..dictionaries import Features


class Activity:
    """Counts over rows, however many there were."""

    def __init__(self, n_features: int) -> None:
        self.n_rows = 0
        self.counts = torch.zeros(n_features, dtype=torch.int64, device="cpu")

    def add(self, features: Features, kept: torch.Tensor) -> None:
        """Adds the rows that a mask [N] keeps."""
        active = features.indices[kept.repeat_interleave(features.indptr.diff())]
        self.n_rows += int(kept.sum())
        self.counts += torch.bincount(active.long(), minlength=len(self.counts))

    def l0(self) -> float:
        """Returns the mean number of active features in a row."""
        return int(self.counts.sum()) / max(1, self.n_rows)

    def density(self) -> torch.Tensor:
        """Returns the part of the rows in which each feature is active, fp64 [F]."""
        return self.counts.double() / max(1, self.n_rows)

    def dead_share(self) -> float:
        """Returns the part of the features that are active in no row."""
        return int((self.counts == 0).sum()) / len(self.counts)
