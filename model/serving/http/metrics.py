"""The engine's counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..engine import EngineStats


@dataclass(frozen=True)
class _Snapshot:
    stats: EngineStats

    def collect(self) -> Iterator[Metric]:
        stats, cache = self.stats, self.stats.cache
        yield GaugeMetricFamily("bitlens_requests_running", "Samples that run", stats.running)
        yield GaugeMetricFamily("bitlens_requests_waiting", "Samples that wait", stats.waiting)
        yield GaugeMetricFamily("bitlens_pages_used", "Pages in memory", cache.pages_used)
        yield GaugeMetricFamily("bitlens_cache_bytes", "Bytes of these pages", cache.bytes)
        yield CounterMetricFamily(
            "bitlens_cache_hit_tokens", "Tokens that were not computed again", cache.hit_tokens
        )
        yield CounterMetricFamily("bitlens_steps", "Steps of the engine", stats.steps)
        yield CounterMetricFamily("bitlens_tokens", "Tokens that passes ran on", stats.tokens)
        yield CounterMetricFamily(
            "bitlens_preemptions", "Samples that were computed again", stats.preemptions
        )


def exposition(stats: EngineStats) -> bytes:
    """Returns the counts in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(stats))
    return generate_latest(registry)
