"""Scores, labels and baselines, judged: the figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..figures import (
    FALSE_POSITIVE_RATES,
    auroc,
    brier,
    calibration_error,
    percentile_interval,
    recall_at,
    reliability,
    resampled,
    roc,
    with_interval,
)
from .baselines import LENGTH

Array = npt.NDArray[np.float64]

CONFOUND = 0.6
"""A length that tells the classes apart with an AUROC surely above this is named as a confound."""


def judge(
    scores: Array, y: Array, groups: Sequence[str], baselines: dict[str, Array]
) -> dict[str, Any]:
    """Returns the figures of labelled scores, those of surface baselines beside them, and the
    paired difference from the best baseline.

    Intervals of AUROC come from draws of whole groups, those of shares are exact. Raises ValueError
    where a class is missing.
    """
    names = list(baselines)
    draws = resampled([scores, *(baselines[n] for n in names)], y, groups)
    surface = {n: _ranking(baselines[n], y, draws[i + 1]) for i, n in enumerate(names)}
    found = {**_ranking(scores, y, draws[0]), **calibration(scores, y), "baselines": surface}
    if names:
        best = max(names, key=lambda n: surface[n]["auroc"])
        at = names.index(best) + 1
        found["best_baseline"] = best
        gap = found["auroc"] - surface[best]["auroc"]
        found["difference"] = with_interval(gap, draws[0] - draws[at])
    found["warnings"] = warnings(found)
    return found


def calibration(scores: Array, y: Array) -> dict[str, Any]:
    """Returns Brier score, expected calibration error and its bins, of scores as log-odds."""
    p = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    bins = [{"p": m, "share": s, "n": n} for m, s, n in reliability(p, y)]
    return {"brier": brier(p, y), "ece": calibration_error(p, y), "reliability": bins}


def warnings(found: dict[str, Any]) -> list[str]:
    """Returns what a reader must know before believing the figures."""
    said = []
    length = found["baselines"].get(LENGTH)
    if length is not None and length["auroc_low"] > CONFOUND:
        said.append(
            f"length confound: length alone tells the classes apart with AUROC "
            f"{length['auroc']:.3f}; match the lengths of the classes"
        )
    if "difference" in found and found["difference"]["low"] <= 0:
        said.append(
            f"not shown to beat surface cues: the difference from {found['best_baseline']} is "
            f"{found['difference']['value']:+.3f}, interval [{found['difference']['low']:+.3f}, "
            f"{found['difference']['high']:+.3f}]"
        )
    few = [r for r in found["recall"] if r["allowed"] < 1]
    if few:
        said.append(
            f"too few negatives for a false-positive rate of {few[0]['target_fpr']:g}: "
            f"{few[0]['fpr']['of']} of them allow no false positive"
        )
    return said


def _ranking(scores: Array, y: Array, draws: Array) -> dict[str, Any]:
    interval = percentile_interval(draws)
    recalls = []
    for rate in FALSE_POSITIVE_RATES:
        point = recall_at(scores, y, rate)
        allowed = int(rate * point.false_positives.of)
        recalls.append({**point.to_dict(), "allowed": allowed})
    return {
        "auroc": auroc(scores, y),
        "auroc_low": interval.low,
        "auroc_high": interval.high,
        "recall": recalls,
        "roc": roc(scores, y),
        "n_positive": int((y == 1).sum()),
        "n_negative": int((y == 0).sum()),
    }
