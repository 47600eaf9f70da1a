"""The time that HTTP adds to the first token, for one client."""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.http import PROMPT
from ..race import Entry, Workers, race
from ..report import Row, at_most, spread_row
from . import Options, command, threads_text


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    with Workers() as workers:
        for dtype in options.dtypes:
            server = workers.get(
                "bitlens over HTTP", model=options.model, threads=threads, dtype=dtype
            )
            result = race({"http": Entry(server, "first_token")}, options.rounds)
            engine = result.values("http", "engine")
            for way, text in (("answer", "an answer"), ("stream", "a stream")):
                over = result.values("http", way)
                yield spread_row(
                    [1e3 * (h - e) for h, e in zip(over, engine, strict=True)],
                    suite="http",
                    what=f"{dtype}, {PROMPT} known tokens: what HTTP adds to the first one of "
                    f"{text}, {threads_text(threads)}",
                    unit="ms",
                    target=at_most(5.0),
                    ours=f"{1e3 * result.median('http', way):.1f} ms",
                    peer=f"{1e3 * result.median('http', 'engine'):.1f} ms by the engine alone",
                    command=command("http", threads, dtype),
                    disturbed=result.disturbed,
                )
