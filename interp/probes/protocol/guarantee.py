"""The finite-sample guarantee on a frozen threshold's false positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ....precision.statistics import upper_bound
from ..data import Dataset
from .alarms import highest

CONFIDENCE = 0.95


def false_positive_guarantee(
    checking: Sequence[torch.Tensor], threshold: float, data: Dataset, max_tokens: int
) -> dict[str, Any]:
    """Returns an upper bound on the share of benign conversations that ever raise an alarm.

    It is exact (Clopper and Pearson, one-sided): over draws of the checking conversations it
    exceeds the true share with probability `CONFIDENCE` at least, for conversations drawn
    independently from the same source, of which at most `max_tokens` tokens are read. A
    conversation counts once, however many of its tokens are above: tokens are not independent.

    Args:
        checking: Running scores of benign conversations that set no threshold.
        data: What they are part of.

    Raises ValueError where there are none.
    """
    if not len(checking):
        raise ValueError("a guarantee needs benign conversations that set no threshold")
    flagged = int((highest(checking) > threshold).sum())
    return {
        "at_most": upper_bound(flagged, len(checking), CONFIDENCE),
        "confidence": CONFIDENCE,
        "flagged": flagged,
        "conversations": len(checking),
        "tokens": sum(len(running) for running in checking),
        "max_tokens": max_tokens,
        "threshold": threshold,
        "data": {"name": data.name, "sha256": data.digest},
    }
