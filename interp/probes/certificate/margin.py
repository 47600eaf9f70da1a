"""A margin for serving in lower precision, calibrated against fp32 with an exact guarantee."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....precision.statistics import upper_bound
from .folds import Array

CONFIDENCE = 0.95


def calibrate_margin(setting: Array, checking: Array) -> tuple[float, dict[str, Any]]:
    """Returns a margin and what is guaranteed of it.

    The margin is the largest distance between two runs' scores, after any token, in the
    conversations that set it. Outside the margin a decision of one run is the other's in every
    conversation whose distance it holds; of those that check it, all but `outside` are such, which
    bounds the share of further ones (Clopper and Pearson, one-sided). Any threshold will do.

    Args:
        setting, checking: The largest distance within each conversation; the conversations drawn
            independently from one source.

    Raises ValueError for none of either, and for distances that are no finite numbers.
    """
    if not len(setting) or not len(checking):
        raise ValueError("a margin needs conversations that set it and others that check it")
    if not np.isfinite(np.concatenate([setting, checking])).all():
        raise ValueError("a distance between the runs is no finite number: look at their scores")
    margin = float(setting.max())
    outside = int((checking > margin).sum())
    guarantee = {
        "at_most": upper_bound(outside, len(checking), CONFIDENCE),
        "confidence": CONFIDENCE,
        "outside": outside,
        "conversations": len(checking),
        "set_by": len(setting),
    }
    return margin, guarantee
