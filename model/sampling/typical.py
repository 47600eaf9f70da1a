"""Locally typical sampling (Meister et al. 2022) across ranks: what min-p, top-k and top-p kept, in
the order of |surprisal - entropy|. Array names as in rounds.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .groups import Rounds
from .radix import Located, locate
from .shard import I64, U32, U64, Shard

ID_BITS = 24
_SHIFTS = tuple(range(48, -1, -8))


@dataclass(frozen=True)
class TypicalSet:
    """The typical tokens among those that min-p, top-k and top-p kept, of one row.

    A token's gap is (x_max - x) * 2^27, the difference rounded to fp32 and the product to an
    integer; its distance is that from the centre.

    Attributes:
        centre: The gap whose surprisal is the entropy.
        distance, last_id: Of the last token kept, in the order distance ascending, id ascending.
    """

    centre: int
    distance: int
    last_id: int

    def holds(self, x: torch.Tensor, x_max: float) -> torch.Tensor:
        """Returns which logits of x [V] are typical, whatever earlier filters kept; bool [V]."""
        gaps_V = (x_max - x).double().mul(2.0**27).round()
        distances_V, ids_V = (gaps_V - self.centre).abs(), torch.arange(len(x), device="cpu")
        ties_V = (distances_V == self.distance) & (ids_V <= self.last_id)
        return (distances_V < self.distance) | ties_V


def typical_set(centre: int, key: int) -> TypicalSet:
    """From the typical key (csrc/spec/typical.h) of the last token kept."""
    ids = (1 << ID_BITS) - 1
    return TypicalSet(centre, ~(key >> ID_BITS) & 0xFFFFFFFF, ids - (key & ids))


@dataclass(frozen=True)
class TypicalShard:
    """The tokens that a rank kept before typical_p, of R rows.

    Attributes:
        kept: Their logits, -inf where not kept.
        centres: Of each row.
    """

    kept: Shard
    centres: U32

    def before(self, indices: I64, keys: U64) -> tuple[U64, U32]:
        """Mass and count ahead of each order key in typical order, [R, C] like `keys`."""
        return self.kept.before(indices, keys, self.centres[indices])

    def histogram(self, indices: I64, prefix: U64, shift: int) -> tuple[U64, U32]:
        """Mass and count by the 8 bits of the typical key at `shift`: [R, 256]."""
        return self.kept.histogram(indices, prefix, shift, self.centres[indices])

    def until(self, indices: I64, last: U64) -> Shard:
        """Rows [R] without what is behind the typical keys `last` [R]."""
        return self.kept.masked(indices, last, self.centres[indices])


def centres_and_masses(everyone: npt.NDArray[np.void]) -> tuple[U32, U64]:
    """Mean gap, to the nearest integer, ties up, and mass [R], from all ranks' sums [N, R]."""
    masses = everyone["mass"].sum(axis=0)
    centres = []
    for column, mass in zip(everyone.T, masses.tolist(), strict=True):
        pairs = zip(column["high"].tolist(), column["low"].tolist(), strict=True)
        weighted_gaps = sum((high << 64) + low for high, low in pairs)
        centres.append((weighted_gaps + mass // 2) // mass)
    return np.array(centres, dtype=np.uint32), masses


def last_kept(shard: TypicalShard, indices: I64, limits: U64) -> Rounds[Located]:
    """The last token with less than limit [R] of mass before it: 7 rounds, 3 KiB each.

    Ids are in the key, so it is one token: `prefix` is its typical key.
    """
    no_caps = np.full(len(indices), 1 << 32, dtype=np.int64)
    return (
        yield from locate(
            lambda prefix, shift: shard.histogram(indices, prefix, shift), _SHIFTS, limits, no_caps
        )
    )
