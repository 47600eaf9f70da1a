"""Thresholds that separate benign conversations set, frozen before anything else is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data import Dataset
from ..figures import FALSE_POSITIVE_RATES, threshold_at
from .alarms import afterwards, alarm_figures, highest
from .cross_validation import OutOfFold
from .scoring import Running

Array = npt.NDArray[np.float64]


def halves(benign: Dataset) -> tuple[list[int], list[int]]:
    """Returns the conversations that set thresholds and those that check them, by their digests."""
    sets = [int(e.digest()[:8], 16) % 2 == 0 for e in benign]
    setting = [i for i, s in enumerate(sets) if s]
    return setting, [i for i, s in enumerate(sets) if not s]


def threshold_of(running: Sequence[torch.Tensor], rate: float) -> float:
    """Returns the threshold that at most this share of streaming conversations exceed anywhere."""
    return threshold_at(highest(running), rate)


def last_threshold_of(running: Sequence[torch.Tensor], rate: float) -> float:
    """Returns the threshold that at most this share of whole conversations exceed."""
    return threshold_at(np.array([float(r[-1]) for r in running]), rate)


def frozen_alarms(
    found: OutOfFold, y: Array, benign: Sequence[Running], setting: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns the alarms of cross-validated conversations, each at the threshold that the benign
    ones set for its fold's probe.

    Args:
        benign: Running scores of the benign conversations by each fold's probe.
        setting: Those that set thresholds.
    """
    figures = []
    for rate in FALSE_POSITIVE_RATES:
        margins: list[torch.Tensor] = list(found.running)
        last: list[torch.Tensor] = list(found.running)
        for (_, test), own in zip(found.folds, benign, strict=True):
            sets = [own[i] for i in setting]
            threshold, of_whole = threshold_of(sets, rate), last_threshold_of(sets, rate)
            for i in test:
                margins[int(i)] = found.running[int(i)] - threshold
                last[int(i)] = found.running[int(i)][-1:] - of_whole
        figures.append(
            {
                "target_fpr": rate,
                **alarm_figures(margins, y, 0.0),
                "afterwards": afterwards(last, y, 0.0),
            }
        )
    return figures


def benign_alarms(
    running: Running, setting: Sequence[int], checking: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns what the thresholds of one half of benign conversations do to the other."""
    of, sets = [running[i] for i in checking], [running[i] for i in setting]
    y = np.zeros(len(of))
    figures = []
    for rate in FALSE_POSITIVE_RATES:
        figures.append(
            {
                "target_fpr": rate,
                **alarm_figures(of, y, threshold_of(sets, rate)),
                "afterwards": afterwards(of, y, last_threshold_of(sets, rate)),
            }
        )
    return figures
