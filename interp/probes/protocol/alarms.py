"""Alarms of a streaming probe: their number, their delay, and their growth with length.

A conversation raises an alarm at the first token after which its running score exceeds the
threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..figures import proportion

Array = npt.NDArray[np.float64]

LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
"""Tokens up to which alarms are counted."""


def highest(running: Sequence[torch.Tensor]) -> Array:
    """Returns the largest running score of each conversation, which decides whether it raises an
    alarm at all."""
    return np.array([float(r.max()) for r in running])


def alarm_figures(running: Sequence[torch.Tensor], y: Array, threshold: float) -> dict[str, Any]:
    """Returns what a threshold does while conversations stream.

    Alarms of conversations and of tokens on each side, per million benign tokens, the tokens until
    a true alarm (quartiles), those of harmful conversations that were released before one (of a
    conversation without an alarm, all), and the share of benign conversations with an alarm up to a
    length, of those that are as long.
    """
    first = np.array([_first(r, threshold) for r in running])
    above = np.array([int((r > threshold).sum()) for r in running])
    lengths = np.array([len(r) for r in running])
    alarmed = first > 0
    found: dict[str, Any] = {"threshold": threshold}
    for name, label in (("benign", 0), ("harmful", 1)):
        of = y == label
        if not of.any():
            continue
        tokens = int(lengths[of].sum())
        found[name] = {
            "conversations": proportion(int(alarmed[of].sum()), int(of.sum())).to_dict(),
            "tokens_above": int(above[of].sum()),
            "tokens": tokens,
            "alarms_per_million_tokens": 1e6 * int(alarmed[of].sum()) / tokens,
            "growth": _growth(first[of], lengths[of]),
        }
    harmful = y == 1
    leaked = np.where(alarmed, first - 1, lengths)[harmful]
    if harmful.any():
        found["harmful"]["tokens_leaked"] = {
            "share": float(leaked.sum() / lengths[harmful].sum()),
            "quartiles": [float(q) for q in np.quantile(leaked, (0.25, 0.5, 0.75))],
        }
    hits = first[alarmed & harmful]
    found["tokens_until_alarm"] = (
        [float(q) for q in np.quantile(hits, (0.25, 0.5, 0.75))] if len(hits) else None
    )
    return found


def afterwards(running: Sequence[torch.Tensor], y: Array, threshold: float) -> dict[str, Any]:
    """Returns the conversations of each side that the score of the whole text flags, when all of it
    has been written."""
    flagged = np.array([float(r[-1]) for r in running]) > threshold
    return {
        name: proportion(int(flagged[y == label].sum()), int((y == label).sum())).to_dict()
        for name, label in (("benign", 0), ("harmful", 1))
        if (y == label).any()
    }


def _first(running: torch.Tensor, threshold: float) -> int:
    above = (running > threshold).nonzero()
    return int(above[0]) + 1 if len(above) else 0


def _growth(first: Array, lengths: Array) -> list[dict[str, Any]]:
    rows = []
    for length in LENGTHS:
        long_enough = lengths >= length
        if long_enough.any():
            alarmed = (first > 0) & (first <= length) & long_enough
            share = proportion(int(alarmed.sum()), int(long_enough.sum()))
            rows.append({"tokens": length, **share.to_dict()})
    return rows
