"""The first token of a prompt whose beginning is known, by that beginning's length; also drawn.

With one thread processor seconds are compared, with more wall time.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

from ...audit.context_cost.cost import context_cost
from ...cpu import cpu_name
from ...model.sources import open_checkpoint
from ..contenders.serving import NEW
from ..race import Entry, Race, Worker, Workers, race
from ..report import Row, at_most, ratio_row, spread_row
from . import Options, clock, command, threads_text

PREFIXES = (256, 512, 1024, 2048, 4096)
PLOT = Path(__file__).parent.parent.parent / "docs" / "images" / "first_token.png"
LLAMA_CPP = "llama.cpp Q4_1"
"""It computes from the file's own blocks, whatever the policy is."""
WANTED = (30, 56)
"""How much sooner a known prompt should be answered."""

Curves = dict[str, dict[int, float]]
"""Cold over warm, by contender and known tokens."""


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    drawn: Curves = {}
    with Workers() as workers:
        for dtype in options.dtypes:
            contenders = _contenders(workers, options.model, threads, dtype)
            for n in (64, 128) if options.quick else PREFIXES:
                task = {"n_prefix": n, "clock": clock(threads)}
                entries = {name: Entry(w, "first_token", task) for name, w in contenders.items()}
                rounds = options.rounds if n <= 1024 else options.rounds // 2
                result = race(entries, max(1, rounds), quiet=threads > 1)
                ideal = _ideal(options.model, n)
                drawn.setdefault("by FLOPs", {})[n] = ideal
                for row, name in _sooner(result, n, ideal, threads, dtype):
                    label = name if name == LLAMA_CPP else f"{name} {dtype}"
                    drawn.setdefault(label, {})[n] = row.value
                    yield row
                yield from _of_a_hit(result, n, threads, dtype)
            yield from _shortest(drawn[f"bitlens {dtype}"], threads, dtype)
    if not options.quick and find_spec("matplotlib") is not None:
        _draw(drawn, threads)


def _contenders(workers: Workers, model: str, threads: int, dtype: str) -> dict[str, Worker]:
    setting: dict[str, Any] = {"model": model, "threads": threads, "dtype": dtype}
    found = {
        name: workers.get(f"{name} serving", **setting) for name in ("bitlens", "transformers")
    }
    if find_spec("xllamacpp") is not None:
        found[LLAMA_CPP] = workers.get("llama.cpp server", model=model, threads=threads)
    return found


def _sooner(
    result: Race, n: int, ideal: float, threads: int, dtype: str
) -> Iterator[tuple[Row, str]]:
    for name in result.samples:
        cold, warm = result.median(name, "cold"), result.median(name, "warm")
        row = ratio_row(
            result, (name, "cold"), (name, "warm"),
            suite="first_token",
            what=f"{_what(n, dtype)}: cold / warm, {name}, {threads_text(threads)}",
            ours=f"{1e3 * cold:.0f} / {1e3 * warm:.1f} ms", peer=f"by FLOPs {ideal:.1f}x",
            command=command("first_token", threads, dtype), details={"ideal": ideal},
        )  # fmt: skip
        yield row, name


def _of_a_hit(result: Race, n: int, threads: int, dtype: str) -> Iterator[Row]:
    warm, resident = result.values("bitlens", "warm"), result.values("bitlens", "resident")
    measured: dict[str, Any] = {
        "suite": "first_token",
        "command": command("first_token", threads, dtype),
        "disturbed": result.disturbed,
    }
    yield spread_row(
        # The goal is 1.1 times the pass and 2 ms.
        [(w - 0.002) / r for w, r in zip(warm, resident, strict=True)],
        what=f"{_what(n, dtype)}: (warm - 2 ms) / a pass over the new tokens alone",
        target=at_most(1.1),
        **measured,
    )
    yield spread_row(
        [1e3 * x for x in result.values("bitlens", "lookup")],
        what=f"looking up {n + NEW} tokens",
        unit="ms",
        target=at_most(1.0),
        **measured,
    )


def _shortest(curve: dict[int, float], threads: int, dtype: str) -> Iterator[Row]:
    """The shortest known beginnings that are answered so much sooner, between those measured."""
    for wanted in WANTED:
        found = shortest(curve, wanted)
        if found is not None:
            yield spread_row(
                [found],
                suite="first_token",
                what=f"{dtype}: known tokens from which on a first token comes {wanted}x sooner",
                unit="tokens",
                command=command("first_token", threads, dtype),
            )


def shortest(curve: dict[int, float], wanted: float) -> float | None:
    """Returns where a curve first reaches a value, on straight lines between logarithms; None
    where it never does."""
    points = sorted(curve.items())
    for (n, low), (m, high) in pairwise(points):
        if low < wanted <= high:
            return float(n * (m / n) ** (log(wanted / low) / log(high / low)))
    return float(points[0][0]) if points and points[0][1] >= wanted else None


def _what(n: int, dtype: str) -> str:
    return f"{dtype}, {n} known tokens and {NEW} new ones"


def _ideal(model: str, n: int) -> float:
    """FLOPs of the whole prompt over those of its new tokens on known ones; both end in logits."""
    config = open_checkpoint(model).config
    whole, known = (context_cost(config, each).model_flops for each in (n + NEW, n))
    logits = 2 * config.d_vocab * config.d_model
    return whole / (whole - known + logits)


def _draw(drawn: Curves, threads: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.5, 4), constrained_layout=True)
    for label, curve in drawn.items():
        style = "k:" if label == "by FLOPs" else "o-" if label.startswith("bitlens") else "s--"
        axis.plot(list(curve), list(curve.values()), style, label=label)
    sizes = list(drawn["by FLOPs"])
    axis.set(
        xlabel=f"known tokens, before {NEW} new ones",
        ylabel="first token: cold over warm",
        xscale="log",
        yscale="log",
    )
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.set_yticks([5, 10, 20, 50, 100], ["5x", "10x", "20x", "50x", "100x"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    time = "processor time" if clock(threads) == "processor" else "time"
    figure.suptitle(f"{time}, {cpu_name()}, {threads_text(threads)}", fontsize=9)
    figure.savefig(PLOT, dpi=120)
