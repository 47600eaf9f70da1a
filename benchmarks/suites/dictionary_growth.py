"""How a TopK training step grows with features, k and batch, beside SAELens's; also drawn.

With one thread processor seconds are compared, with more wall time.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..race import Entry, Workers, race
from ..report import Row, ratio_row
from . import Options, clock, command, threads_text

PLOT = Path(__file__).parent.parent.parent / "docs" / "images" / "dictionary_growth.png"
SETTING = {"batch": 2048, "d": 576, "d_sae": 4608, "k": 32, "dead": 0.01, "at_least": 1}
GROWING = {
    "d_sae": (1152, 2304, 4608, 9216, 18_432),
    "k": (8, 16, 32, 64, 128),
    "batch": (256, 512, 1024, 2048, 4096),
}
TITLES = {"d_sae": "features", "k": "k", "batch": "rows of a batch"}
CONTENDERS = ("bitlens", "SAELens")
UNITS = {"processor": "CPU-ms", "wall": "ms"}

Curves = dict[str, dict[int, float]]
"""Milliseconds of a step, by contender and size."""


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    drawn: dict[str, Curves] = {}
    with Workers() as workers:
        contenders = {n: workers.get(f"{n} training", threads=threads) for n in CONTENDERS}
        for name, sizes in GROWING.items():
            curves: Curves = {who: {} for who in CONTENDERS}
            for size in sizes[:1] if options.quick else sizes:
                task = {**SETTING, name: size, "clock": clock(threads)}
                if options.quick:
                    task |= {"batch": 64, "d": 64, "d_sae": 256, "at_least": 0}
                entries = {who: Entry(w, "step", task) for who, w in contenders.items()}
                result = race(entries, max(1, options.rounds // 2), quiet=threads > 1)
                for who in CONTENDERS:
                    curves[who][size] = result.median(who) * 1e3
                yield ratio_row(
                    result,
                    ("SAELens", "seconds"),
                    ("bitlens", "seconds"),
                    suite="dictionary_growth",
                    what=f"TopK step, {TITLES[name]}: {size}, {threads_text(threads)}",
                    ours=f"{curves['bitlens'][size]:.0f} {UNITS[clock(threads)]}",
                    peer=f"{curves['SAELens'][size]:.0f} {UNITS[clock(threads)]}",
                    command=command("dictionary_growth", threads),
                )
            drawn[name] = curves
    if not options.quick and find_spec("matplotlib") is not None:
        _draw(drawn, threads)


def _draw(drawn: dict[str, Curves], threads: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(drawn), figsize=(12, 3.6), constrained_layout=True)
    for axis, (name, curves) in zip(axes, drawn.items(), strict=True):
        for who, curve in curves.items():
            axis.plot(list(curve), list(curve.values()), "o-", label=who)
        axis.set(
            xlabel=TITLES[name],
            ylabel=f"{UNITS[clock(threads)]} a step",
            xscale="log",
            yscale="log",
        )
        axis.set_xticks(list(curve), [str(size) for size in curve])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(
        f"TopK training step, d 576; elsewhere F 4608, k 32, batch 2048; {threads_text(threads)}"
    )
    figure.savefig(PLOT, dpi=120)
