"""The cost of watching: eight probes on three hooks in bf16, and an alarm that is explained."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..race import Entry, Race, Workers, race
from ..report import Row, at_most, ratio_row, spread_row
from . import Options, command

OWN, SHARE, EXPLAINED = 50.0, 0.01, 50.0


def rows(options: Options) -> Iterator[Row]:
    n_new, rounds = options.size(32, 4), max(options.rounds, options.size(15, 1))
    with Workers() as workers:
        model = workers.get("watched bitlens", model=options.model, threads=1, dtype="bf16")
        for batch in (1, 8):
            args = {"batch": batch, "n_prompt": options.size(32, 4), "n_new": n_new}
            entries = {
                "plain": Entry(model, "generate", {**args, "watched": False}),
                "watched": Entry(model, "generate", {**args, "watched": True}),
            }
            yield from _of_batch(race(entries, rounds), batch)
        for n_tokens in (64, 256):
            entry = {"explained": Entry(model, "explained", {"n_tokens": n_tokens})}
            taken = [1e3 * s for s in race(entry, options.rounds).values("explained", "seconds")]
            yield spread_row(
                taken,
                suite="monitors",
                what=f"an explained alarm, {n_tokens} tokens that count, 1 thread",
                unit="ms",
                target=at_most(EXPLAINED),
                command=command("monitors"),
            )


def _of_batch(result: Race, batch: int) -> Iterator[Row]:
    what = f"8 probes on 3 hooks, batch {batch}, bf16, 1 thread"
    own = [1e6 * s for s in result.values("watched", "own")]
    yield spread_row(
        own,
        suite="monitors",
        what=f"{what}: the monitors' own time a step",
        unit="us",
        target=at_most(OWN),
        command=command("monitors"),
        disturbed=result.disturbed,
    )
    step = f"{result.median('plain', 'step') * 1e3:.2f} ms (plain step)"
    yield ratio_row(
        result,
        ("watched", "own"),
        ("plain", "step"),
        suite="monitors",
        what=f"{what}: the monitors' own time, of a plain step",
        ours=f"{statistics.median(own):.0f} us",
        peer=step,
        target=at_most(SHARE),
        command=command("monitors"),
    )
    yield ratio_row(
        result,
        ("watched", "step"),
        ("plain", "step"),
        suite="monitors",
        what=f"{what}: the whole run, over one without",
        ours=f"{result.median('watched', 'step') * 1e3:.2f} ms a step",
        peer=step,
        command=command("monitors"),
    )
