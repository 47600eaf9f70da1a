"""The last kept token of a row by levels of 256-bin histograms over the bits of its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .groups import Rounds, gather
from .shard import I64, U32, U64, Bools, Shard


@dataclass(frozen=True)
class Kept:
    """The tokens a row keeps: all with larger order bits, and the first of those with equal ones.

    Attributes, each [R]:
        order: Order bits of the last kept token.
        count, mass: Of all kept tokens.
        quota: How many of the equal ones lie on this rank.
        partial: Whether this rank holds equal ones beyond its quota.
        last: Whether the last kept token lies on this rank.
    """

    order: U32
    count: I64
    mass: U64
    quota: I64
    partial: Bools
    last: Bools


@dataclass(frozen=True)
class Located:
    """The place of the last kept token of each row [R].

    Attributes:
        prefix: All bits of the order that the levels covered.
        count_before, mass_before: Kept tokens with larger bits.
        mass, counts: Of tokens with these bits, [R], and by rank [N, R].
    """

    prefix: U64
    count_before: I64
    mass_before: U64
    mass: U64
    counts: I64


def locate(
    histogram: Callable[[U64, int], tuple[U64, U32]], shifts: Sequence[int], limits: U64, caps: I64
) -> Rounds[Located]:
    """Finds the last token with mass before it < limit and fewer than cap before it.

    Args:
        histogram: Mass and count here [R, 256] of the 8 bits at a shift, below a prefix [R].
        limits, caps: [R].
    """
    here = np.arange(len(limits))
    prefix = np.zeros(len(limits), dtype=np.uint64)
    mass_above = np.zeros(len(limits), dtype=np.uint64)
    count_above = np.zeros(len(limits), dtype=np.int64)
    for shift in shifts:
        masses, counts = yield from gather(*histogram(prefix, shift))
        mass = masses.sum(axis=0)[:, ::-1]  # descending order
        count = counts.sum(axis=0, dtype=np.int64)[:, ::-1]
        mass_before = mass_above[:, None] + mass.cumsum(axis=1) - mass
        count_before = count_above[:, None] + count.cumsum(axis=1) - count
        entered = (count > 0) & (mass_before < limits[:, None]) & (count_before < caps[:, None])
        chosen = 255 - entered[:, ::-1].argmax(axis=1)  # the last one entered
        mass_above, count_above = mass_before[here, chosen], count_before[here, chosen]
        prefix = (prefix << np.uint64(8)) | (255 - chosen).astype(np.uint64)
    equal = np.ascontiguousarray(counts[:, here, 255 - chosen]).astype(np.int64)
    return Located(prefix, count_above, mass_above, mass[here, chosen], equal)


def descend(
    shard: Shard, indices: I64, limits: U64, caps: I64, id_order: I64, rank: int
) -> Rounds[Kept]:
    """Finds the prefix with mass before < limit and fewer than cap before: 4 rounds, 3 KiB each.

    Args:
        limits, caps: [R].
        id_order: Ranks by ascending ids.
    """
    found = yield from locate(
        lambda prefix, shift: shard.histogram(indices, prefix, shift),
        (24, 16, 8, 0),
        limits,
        caps,
    )
    equal, count_equal = found.counts, found.counts.sum(axis=0)
    weight = found.mass // count_equal.astype(np.uint64)
    by_mass = (limits - found.mass_before - np.uint64(1)) // weight + np.uint64(1)
    by_count = np.minimum(count_equal, caps - found.count_before)
    kept = np.minimum(by_mass, by_count.astype(np.uint64)).astype(np.int64)
    quota = np.ascontiguousarray(_quotas(equal, kept, id_order)[rank])
    ahead = equal[id_order[: int(np.flatnonzero(id_order == rank)[0])]].sum(axis=0)
    return Kept(
        order=found.prefix.astype(np.uint32),
        count=found.count_before + kept,
        mass=found.mass_before + kept.astype(np.uint64) * weight,
        quota=quota,
        partial=quota < equal[rank],
        last=(quota > 0) & (ahead + quota == kept),
    )


def _quotas(equal: I64, kept: I64, id_order: I64) -> I64:
    """The first `kept` of the equal tokens [N, R], in order of ids, by rank [N, R]."""
    sorted_equal = equal[id_order]
    ahead = sorted_equal.cumsum(axis=0) - sorted_equal
    quotas = np.empty(equal.shape, dtype=np.int64)
    quotas[id_order] = np.clip(kept - ahead, 0, sorted_equal)
    return quotas


def thresholds(kept: Kept, last_ids: U32) -> U64:
    """The smallest order key that this rank keeps [R]; `last_ids`: of the quota-th equal token."""
    order = kept.order.astype(np.uint64)
    inside = (order << np.uint64(32)) | (~last_ids).astype(np.uint64)
    whole = order << np.uint64(32)
    none = (order + np.uint64(1)) << np.uint64(32)
    return np.where(~kept.partial, whole, np.where(kept.quota > 0, inside, none))
