"""The counts of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..cache.prefix_cache import CacheStats


@dataclass(frozen=True)
class EngineStats:
    """The counts of an engine.

    Attributes:
        running, waiting: Samples that have pages, and samples that have none yet.
        steps: Steps so far.
        tokens: Tokens that passes ran on, prompts' included.
        replayed: Tokens whose keys and values were there, and that ran again for whoever watches
            them, up to the last layer that is watched.
        preemptions: Samples that gave up their pages to older ones, and were computed again.
        cache: Of the prompts.
    """

    running: int
    waiting: int
    steps: int
    tokens: int
    replayed: int
    preemptions: int
    cache: CacheStats
