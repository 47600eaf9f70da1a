"""Training a TopK SAE: its steps against SAELens's, its harvest against bare forward passes."""

from __future__ import annotations

from collections.abc import Iterator

from ..race import Entry, Workers, race
from ..report import Row, at_least, ratio_row
from . import Options, command, threads_text

D_MODEL, K, DEAD = 576, 32, 0.01


def rows(options: Options) -> Iterator[Row]:
    with Workers() as workers:
        for threads in options.threads:
            for d_sae in (4608, 18_432):
                yield _step(options, workers, threads, options.size(d_sae, 256))
            yield _harvest(options, workers, threads)


def _harvest(options: Options, workers: Workers, threads: int) -> Row:
    worker = workers.get("harvesting", model=options.model, threads=threads)
    size = {"n_tokens": options.size(16_384, 64)}
    entries = {name: Entry(worker, name, size) for name in ("harvest", "forward")}
    result = race(entries, options.rounds)
    return ratio_row(
        result,
        ("forward", "seconds"),
        ("harvest", "seconds"),
        suite="dictionaries",
        what=f"harvest of layer 15, against its forward passes alone, {threads_text(threads)}",
        ours=f"{size['n_tokens'] / result.median('harvest'):.0f} tok/s",
        peer=f"{size['n_tokens'] / result.median('forward'):.0f} tok/s",
        target=at_least(0.9),
        command=command("dictionaries", threads),
    )


def _step(options: Options, workers: Workers, threads: int, d_sae: int) -> Row:
    size = {
        "batch": options.size(2048, 64),
        "d": options.size(D_MODEL, 64),
        "d_sae": d_sae,
        "k": K,
        "dead": DEAD,
        "at_least": options.size(2, 0),
    }
    entries = {
        name: Entry(workers.get(f"{name} training", threads=threads), "step", size)
        for name in ("bitlens", "SAELens")
    }
    result = race(entries, options.rounds)
    return ratio_row(
        result,
        ("SAELens", "seconds"),
        ("bitlens", "seconds"),
        suite="dictionaries",
        what=f"TopK step, {size['batch']} rows, F {d_sae}, k {K}, AuxK, {threads_text(threads)}",
        ours=f"{result.median('bitlens') * 1e3:.0f} ms",
        peer=f"{result.median('SAELens') * 1e3:.0f} ms",
        target=at_least(6.0) if d_sae >= 18_432 else None,
        command=command("dictionaries", threads),
    )
