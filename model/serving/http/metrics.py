"""Counts of the pools for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..counts import EngineStats
from ..router import Router

_GAUGES: tuple[tuple[str, str, Callable[[EngineStats], int]], ...] = (
    ("requests_running", "Samples that run", lambda stats: stats.running),
    ("requests_waiting", "Samples that wait", lambda stats: stats.waiting),
    ("pages_used", "Pages in memory", lambda stats: stats.cache.pages_used),
    ("cache_bytes", "Bytes of these pages", lambda stats: stats.cache.bytes),
)
_COUNTERS: tuple[tuple[str, str, Callable[[EngineStats], int]], ...] = (
    (
        "cache_hit_tokens",
        "Tokens whose keys and values were there",
        lambda stats: stats.cache.hit_tokens,
    ),
    ("steps", "Steps of the engines", lambda stats: stats.steps),
    ("tokens", "Tokens that passes ran on", lambda stats: stats.tokens),
    (
        "tokens_replayed",
        "Of these, tokens run again for their watchers",
        lambda stats: stats.replayed,
    ),
    ("preemptions", "Samples that were computed again", lambda stats: stats.preemptions),
)


@dataclass(frozen=True)
class _Snapshot:
    router: Router

    def collect(self) -> Iterator[Metric]:
        """Counts of all pools together, and by pool the requests that it took and refused."""
        pools = self.router.pools
        stats = [pool.engine.stats() for pool in pools]
        for name, said, read in _GAUGES:
            yield GaugeMetricFamily(f"bitlens_{name}", said, sum(map(read, stats)))
        for name, said, read in _COUNTERS:
            yield CounterMetricFamily(f"bitlens_{name}", said, sum(map(read, stats)))
        moved = "Conversations that outgrew a pool"
        yield CounterMetricFamily("bitlens_conversations_moved", moved, self.router.n_moved)
        taken, refused = (
            CounterMetricFamily(f"bitlens_pool_requests_{name}", said, labels=["pool"])
            for name, said in (
                ("taken", "Requests by pool"),
                ("refused", "Requests that named another pool than the one they came to"),
            )
        )
        for pool in pools:
            taken.add_metric([pool.name], pool.n_taken)
            refused.add_metric([pool.name], pool.n_refused)
        yield taken
        yield refused


def exposition(router: Router) -> bytes:
    """Returns the counts in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(router))
    return generate_latest(registry)
