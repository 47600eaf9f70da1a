"""A part to train on and a part to judge on, by whole groups, the same on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .example import DataError, Dataset

SIDES = ("train", "test")
TEST_ONE_IN = 4
"""One group in so many is for judging."""


def side_of(source: str) -> tuple[str, str | None]:
    """Returns what a source names and which side of it; no side where it ends in neither ":train"
    nor ":test"."""
    name, _, side = source.rpartition(":")
    return (name, side) if side in SIDES else (source, None)


def one_side(dataset: Dataset, side: str) -> Dataset:
    """Returns the groups of a side, drawn by the digest of their names: other data added to a set
    move no group. Raises DataError where the side is empty."""
    kept = tuple(e for e in dataset if _is_test(e.group) == (side == "test"))
    if not kept:
        raise DataError(f"{dataset.name}: no group falls to {side}: bring more groups")
    return replace(dataset, name=f"{dataset.name}:{side}", examples=kept)


def _is_test(group: str) -> bool:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % TEST_ONE_IN == 0
