"""The folds of csrc/spec/fold.h in fp64, after each token, and the bounds of fp32 ones.

docs/accuracy.md has the bounds. Shapes: n tokens of one conversation, H heads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ....precision.arithmetic.growth import gamma
from ..aggregate import Aggregate

Array = npt.NDArray[np.float64]

_U, _U_FP64 = 2.0**-24, 2.0**-53


def running_fold(rule: Aggregate, z: Array, logits: Array | None) -> Array:
    """Returns each head's result after each token, fp64 [n, H], of values and logits [n, H]."""
    n = len(z)
    if rule.kind == "mean":
        return np.asarray(z.cumsum(0) / np.arange(1, n + 1)[:, None])
    if rule.kind == "last":
        return z
    if rule.kind == "max":
        return np.maximum.accumulate(z, axis=0)
    if rule.kind == "rolling":
        return _rolling(z, rule.window)
    return _ema(z, rule.weight) if rule.kind == "ema" else _attended(z, logits)


def running_fold_error(
    rule: Aggregate, z: Array, z_error: Array, logits: Array | None, logit_error: Array | None
) -> Array:
    """Returns how far an fp32 fold of fp32 values can be from `running_fold`, fp64 [n, H].

    What `running_fold` rounds is in it. A fold is an average of values, or the largest of some: it
    moves no further than its values do. Attention's weights move by at most exp(2 e) - 1 in all
    where logits are off by e.
    """
    n = np.arange(1, len(z) + 1, dtype=np.float64)[:, None]
    largest = np.maximum.accumulate(np.abs(z) + z_error, axis=0)
    moved = np.maximum.accumulate(z_error, axis=0) + (n * n + 16 * n) * _U_FP64 * largest
    if rule.kind in ("last", "max"):
        return moved
    if rule.kind in ("mean", "rolling"):
        count = n if rule.kind == "mean" else np.minimum(n, rule.window)
        growth = np.array([gamma(int(k) + 1, _U) for k in count[:, 0]])[:, None]
        return np.asarray(moved + growth * largest)
    if rule.kind == "ema":
        step = (1 + 4 * rule.weight) * _U * largest
        return np.asarray(moved + np.minimum(n, 1 / rule.weight) * step * (1 + 8 * _U))
    assert logits is not None
    assert logit_error is not None
    off = np.maximum.accumulate(logit_error, axis=0)
    span = np.maximum.accumulate(logits, 0) - np.minimum.accumulate(logits, 0) + 2 * off
    rounding = 2 * (6 * n + 8 + span) * _U * largest
    return np.asarray(moved + np.expm1(2 * off) * largest + rounding)


def _rolling(z: Array, window: int) -> Array:
    sums = np.concatenate([np.zeros((1, z.shape[1])), z.cumsum(0)])
    first = np.maximum(np.arange(len(z)) + 1 - window, 0)
    means = (sums[1:] - sums[first]) / (np.arange(len(z)) + 1 - first)[:, None]
    if len(z) > window:
        means[window - 1 :] = np.maximum.accumulate(means[window - 1 :], axis=0)
    return np.asarray(means)


def _ema(z: Array, weight: float) -> Array:
    averages = np.empty_like(z)
    averages[0] = z[0]
    for t in range(1, len(z)):
        averages[t] = averages[t - 1] + float(np.float32(weight)) * (z[t] - averages[t - 1])
    return np.maximum.accumulate(averages, axis=0)


def _attended(z: Array, logits: Array | None) -> Array:
    assert logits is not None
    found = np.empty_like(z)
    largest, total, weighted = logits[0], np.ones(z.shape[1]), z[0]
    found[0] = z[0]
    for t in range(1, len(z)):
        higher = np.maximum(largest, logits[t])
        kept, p = np.exp(largest - higher), np.exp(logits[t] - higher)
        total, weighted, largest = total * kept + p, weighted * kept + p * z[t], higher
        found[t] = weighted / total
    return found
