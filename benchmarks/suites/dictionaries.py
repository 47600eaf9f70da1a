"""A TopK SAE: its training steps and its use against SAELens's, its harvest against bare forward
passes, and the memory of its training against the stated bound.

With one thread processor seconds are compared, with more wall time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..race import Entry, Race, Workers, race
from ..report import Row, at_least, at_most, ratio_row, spread_row
from . import Options, clock, command, threads_text

D_MODEL, D_SAE, K, DEAD = 576, 18_432, 32, 0.01
USED_ROWS = 512


def rows(options: Options) -> Iterator[Row]:
    with Workers() as workers:
        for threads in options.threads:
            for d_sae in (D_SAE // 4, D_SAE):
                yield from _step(options, workers, threads, options.size(d_sae, 256))
            yield from _use(options, workers, threads)
            yield _harvest(options, workers, threads)
        for architecture in ("topk", "jumprelu"):
            yield _memory(options, workers, architecture)


def _race(
    options: Options, threads: int, entries: dict[str, tuple[Any, str, dict[str, Any]]]
) -> Race:
    made = {
        name: Entry(worker, task, {**size, "clock": clock(threads)})
        for name, (worker, task, size) in entries.items()
    }
    return race(made, options.rounds, quiet=threads > 1)


def _step(options: Options, workers: Workers, threads: int, d_sae: int) -> Iterator[Row]:
    size = {
        "batch": options.size(2048, 64),
        "d": options.size(D_MODEL, 64),
        "d_sae": d_sae,
        "k": K,
        "dead": DEAD,
        "at_least": options.size(2, 0),
    }
    ours, theirs = (workers.get(f"{n} training", threads=threads) for n in ("bitlens", "SAELens"))
    result = _race(
        options,
        threads,
        {
            "bitlens": (ours, "step", size),
            "fp32": (theirs, "step", size),
            "bf16 autocast": (theirs, "step", {**size, "autocast": True}),
        },
    )
    for peer, goal in (("fp32", 6.0), ("bf16 autocast", 3.0)):
        yield _against(
            result,
            peer,
            threads,
            f"TopK step, {size['batch']} rows, F {d_sae}, k {K}, AuxK, SAELens in {peer}",
            goal if d_sae >= D_SAE else None,
        )


def _use(options: Options, workers: Workers, threads: int) -> Iterator[Row]:
    made = {
        "d": options.size(D_MODEL, 64),
        "d_sae": options.size(D_SAE, 256),
        "k": K,
    }
    size = {"batch": options.size(USED_ROWS, 16), "at_least": options.size(1, 0)}
    ours, theirs = (
        workers.get(f"{n} dictionary", threads=threads, **made) for n in ("bitlens", "SAELens")
    )
    for task, what, goal in (("both", "encode + decode", 1.7), ("decode", "decode alone", 20.0)):
        pair = {"bitlens": (ours, task, size), "SAELens": (theirs, task, size)}
        result = _race(options, threads, pair)
        what = f"{what} of {size['batch']} rows, F {made['d_sae']}, k {K}, SAELens in fp32"
        yield _against(result, "SAELens", threads, what, goal)


def _against(result: Race, peer: str, threads: int, what: str, goal: float | None) -> Row:
    unit = "CPU-ms" if threads == 1 else "ms"
    return ratio_row(
        result,
        (peer, "seconds"),
        ("bitlens", "seconds"),
        suite="dictionaries",
        what=f"{what}, {threads_text(threads)}",
        ours=f"{result.median('bitlens') * 1e3:.1f} {unit}",
        peer=f"{result.median(peer) * 1e3:.1f} {unit}",
        target=None if goal is None else at_least(goal),
        command=command("dictionaries", threads),
    )


def _harvest(options: Options, workers: Workers, threads: int) -> Row:
    worker = workers.get("harvesting", model=options.model, threads=threads)
    size = {"n_tokens": options.size(16_384, 64)}
    result = _race(
        options, threads, {name: (worker, name, size) for name in ("harvest", "forward")}
    )
    unit = "tok/CPU-s" if threads == 1 else "tok/s"
    return ratio_row(
        result,
        ("forward", "seconds"),
        ("harvest", "seconds"),
        suite="dictionaries",
        what=f"harvest of layer 15, against its forward passes alone, {threads_text(threads)}",
        ours=f"{size['n_tokens'] / result.median('harvest'):.0f} {unit}",
        peer=f"{size['n_tokens'] / result.median('forward'):.0f} {unit}",
        target=at_least(0.9),
        command=command("dictionaries", threads),
    )


def _memory(options: Options, workers: Workers, architecture: str) -> Row:
    size = {
        "d": options.size(D_MODEL, 64),
        "d_sae": options.size(D_SAE, 256),
        "k": K,
        "batch": options.size(2048, 64),
        "n_rows": options.size(1 << 19, 256),
        "architecture": architecture,
    }
    worker = workers.get("dictionary memory")
    (sample,) = race({"bitlens": Entry(worker, "train", size)}, 1, quiet=False).samples["bitlens"]
    return spread_row(
        [sample["held"] / sample["bound"]],
        suite="dictionaries",
        what=f"peak memory of training {architecture}, F {size['d_sae']}, over its bound",
        ours=f"{sample['held'] / 2**20:.0f} MiB",
        peer=f"{sample['bound'] / 2**20:.0f} MiB",
        target=at_most(1.0),
        command=command("dictionaries", max(options.threads)),
    )
