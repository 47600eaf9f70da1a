"""Exact tests that two runs may be exchanged: McNemar's, and its form for clusters."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def exchange_test(differences: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Returns the exact two-sided p-value of "the two runs are exchangeable in every cluster".

    Args:
        differences: Whole numbers, an item each: right in b minus right in a.
        clusters: What items with the same entry share; all of a cluster change sign together.

    The sum of differences is compared with its distribution over the 2^C equally likely signs of C
    clusters (Fisher, The Design of Experiments, 1935). With an item a cluster and differences of
    -1, 0 and 1 it is McNemar's exact test. Raises ValueError for lengths that differ.
    """
    if len(differences) != len(clusters):
        raise ValueError(f"{len(differences)} differences in {len(clusters)} clusters")
    sums: dict[Hashable, int] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0) + int(difference)
    weights = [abs(total) for total in sums.values() if total]
    observed = abs(sum(sums.values()))
    chances = _signed_sums(weights)
    centre = len(chances) // 2
    if observed == 0:
        return 1.0
    return float(min(1.0, 2 * chances[centre + observed :].sum()))


def _signed_sums(weights: Iterable[int]) -> np.ndarray:
    """Returns the chances of every sum of +-weights, from the least to the greatest."""
    found = np.ones(1)
    for weight in sorted(weights):
        wider = np.zeros(len(found) + 2 * weight)
        wider[: len(found)] += 0.5 * found
        wider[2 * weight :] += 0.5 * found
        found = wider
    return found
