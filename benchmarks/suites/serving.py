"""Many requests at a time: an engine beside static batches.

With one thread processor seconds are compared, with more wall time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..contenders.serving import mixed_work
from ..race import Entry, Workers, race
from ..report import Row, at_least, ratio_row
from . import Options, clock, command, threads_text


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    work = mixed_work(options.size(64, 32))
    if options.quick:
        work = [(p // 8, a // 8) for p, a in work]
    with Workers() as workers:
        for dtype in options.dtypes:
            setting: dict[str, Any] = {"model": options.model, "threads": threads, "dtype": dtype}
            ours = workers.get("bitlens serving", **setting)
            peer = workers.get("transformers serving", **setting)
            task = {"work": work, "clock": clock(threads)}
            entries = {
                "engine": Entry(ours, "serve", task),
                "static": Entry(ours, "static", task),
                "transformers": Entry(peer, "serve", task),
            }
            result = race(entries, max(1, options.rounds // 2), quiet=threads > 1)
            what = f"{dtype}, {len(work)} mixed requests, 32 at a time"
            tokens = sum(a for _, a in work)
            for name, text, target in (
                ("static", "a static batch without padding", at_least(0.85)),
                ("transformers", "transformers' batched generate", at_least(1.5)),
            ):
                yield ratio_row(
                    result, (name, "seconds"), ("engine", "seconds"),
                    suite="serving", what=f"{what}: beside {text}, {threads_text(threads)}",
                    target=target, command=command("serving", threads, dtype),
                    ours=f"{tokens / result.median('engine'):.0f} new tokens/s",
                    peer=f"{tokens / result.median(name):.0f} new tokens/s",
                )  # fmt: skip
