"""What the memory can feed."""

from __future__ import annotations

from collections.abc import Iterator

from ..race import Entry, Workers, race
from ..report import Row, spread_row
from . import Options, command, threads_text


def rows(options: Options) -> Iterator[Row]:
    with Workers() as workers:
        for threads in options.threads:
            reader = workers.get("bandwidth", threads=threads)
            size = {"mebibytes": options.size(512, 64)}
            result = race({"memory": Entry(reader, "read", size)}, options.rounds)
            rates = [rate / 1e9 for rate in result.values("memory", "bytes_per_second")]
            yield spread_row(
                rates,
                suite="bandwidth",
                what=f"prefetched reads, {threads_text(threads)}",
                unit="GB/s",
                command=command("bandwidth", threads),
                disturbed=result.disturbed,
            )
