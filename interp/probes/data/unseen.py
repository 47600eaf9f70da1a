"""Refuses to judge a probe on what it was trained on."""

from __future__ import annotations

from collections.abc import Collection

from .example import Dataset
from .near_duplicates import LeakError


def check_unseen(seen: Collection[str], data: Dataset) -> None:
    """Raises LeakError for conversations among those that a probe was trained on.

    Args:
        seen: The first 16 digits of their digests, as a probe carries them ("text_digests").
    """
    known = set(seen)
    leaked = [e.id for e in data if e.digest()[:16] in known]
    if leaked:
        raise LeakError(
            f"{len(leaked)} conversations of {data.name} are what the probe was trained on, "
            f"{leaked[0]!r} among them: judge it on others, such as NAME:test of NAME:train"
        )
