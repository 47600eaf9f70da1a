"""Circuits: a training step over every layer against plain torch's, and graphs by prompt length;
their growth is also drawn."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..race import Entry, Workers, race
from ..report import Row, at_least, at_most, ratio_row, spread_row
from . import Options, command, threads_text

PLOT = Path(__file__).parent.parent.parent / "docs" / "images" / "trace_growth.png"
PROMPTS = (16, 32, 64, 128)
"""Tokens of the prompts whose graphs have FEATURES at most."""

LONG, LONG_FEATURES = 2000, 500
"""Tokens of a prompt whose patterns do not fit into memory, and its features."""

D_SAE, K, FEATURES = 1536, 16, 4000
SECONDS, LONG_GB = 60.0, 8.0


def rows(options: Options) -> Iterator[Row]:
    for threads in options.threads:
        for name, reach in (("per-layer transcoders", 1), ("a cross-layer transcoder", None)):
            yield _step(options, threads, name, reach)
    yield from _traces(options, max(options.threads))


def _step(options: Options, threads: int, name: str, reach: int | None) -> Row:
    size = {
        "layers": options.size(30, 3),
        "batch": options.size(1024, 16),
        "d": options.size(576, 32),
        "d_sae": options.size(D_SAE, 64),
        "k": options.size(K, 4),
        "max_reach": reach,
        "at_least": 0,  # one call: a step takes seconds
    }
    with Workers() as workers:  # ended after each, for a cross-layer one's weights are many
        entries = {
            who: Entry(workers.get(f"{who} layer training", threads=threads), "step", size)
            for who in ("bitlens", "torch")
        }
        result = race(entries, max(1, options.rounds // 3))
    return ratio_row(
        result,
        ("torch", "seconds"),
        ("bitlens", "seconds"),
        suite="circuits",
        what=f"step of {name}, {size['batch']} rows, F {size['d_sae']}, {threads_text(threads)}",
        ours=f"{result.median('bitlens'):.2f} s",
        peer=f"{result.median('torch'):.2f} s",
        target=at_least(4.0),
        command=command("circuits", threads),
    )


def _traces(options: Options, threads: int) -> Iterator[Row]:
    curve: dict[int, tuple[float, float]] = {}
    for n in (8, 16) if options.quick else (*PROMPTS, LONG):
        most = options.size(LONG_FEATURES if n == LONG else FEATURES, 50)
        size = {"n_tokens": n, "max_feature_nodes": most}
        setting = {"model": options.model, "threads": threads, "k": K}
        with Workers() as workers:  # a process each: memory is its largest ever
            worker = workers.get("tracing", d_sae=options.size(D_SAE, 64), **setting)
            result = race({"bitlens": Entry(worker, "trace", size)}, 1)
        seconds, gigabytes = (result.values("bitlens", name) for name in ("seconds", "GB"))
        if n != LONG:
            curve[n] = seconds[0], gigabytes[0]
        n_features = int(result.values("bitlens", "features")[0])
        what = f"graph of {n:,} tokens, {n_features:,} features, {threads_text(threads)}"
        yield spread_row(
            seconds,
            suite="circuits",
            what=what,
            unit="s",
            target=at_most(SECONDS) if n == 64 else None,
            command=command("circuits", threads),
        )
        yield spread_row(
            gigabytes,
            suite="circuits",
            what=f"{what}: memory, model and transcoders included",
            unit="GB",
            target=at_most(LONG_GB) if n == LONG else None,
            command=command("circuits", threads),
        )
    if not options.quick and find_spec("matplotlib") is not None:
        _draw(curve, threads)


def _draw(curve: dict[int, tuple[float, float]], threads: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    names = ("seconds", "GB, model and transcoders included")
    for axis, name, values in zip(axes, names, zip(*curve.values(), strict=True), strict=True):
        axis.plot(list(curve), values, "o-")
        axis.set(xlabel="tokens of the prompt", ylabel=name, xscale="log", ylim=(0, None))
        axis.set_xticks(list(curve), [str(n) for n in curve])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"Attribution graphs of SmolLM2, {FEATURES:,} features at most; {threads_text(threads)}"
    )
    figure.savefig(PLOT, dpi=120)
