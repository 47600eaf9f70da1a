"""Figures of what was left out of training: each category, source or data set in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..figures import auroc, percentile_interval, resampled, with_interval
from .judging import calibration

Array = npt.NDArray[np.float64]


def left_out_figures(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns what `leave_one_out` found, as JSON holds it: AUROC, calibration error, the surface
    baselines and the paired difference from the best of them. Intervals are of draws of whole
    groups; where there is one group alone, there are none."""
    return {name: _figures(each) for name, each in found.items()}


def _figures(each: dict[str, Any]) -> dict[str, Any]:
    y: Array = each["y"]
    surface = {name: auroc(scores, y) for name, scores in each["surface"].items()}
    figures = {
        "auroc": auroc(each["scores"], y),
        "ece": calibration(each["scores"], y)["ece"],
        "choice": each["choice"].to_dict(),
        "baselines": surface,
        "n_positive": int(y.sum()),
        "n_negative": int((y == 0).sum()),
    }
    if len(set(each["groups"])) < 2:
        return figures
    best = max(surface, key=lambda name: surface[name]) if surface else None
    rivals = [] if best is None else [each["surface"][best]]
    draws = resampled([each["scores"], *rivals], y, each["groups"])
    own = percentile_interval(draws[0])
    figures |= {"auroc_low": own.low, "auroc_high": own.high}
    if best is not None:
        gap = with_interval(figures["auroc"] - surface[best], draws[0] - draws[1])
        figures["difference"] = {"from": best, **gap}
    return figures
