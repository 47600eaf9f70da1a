"""How cost grows with the prompt and with the batch; also drawn, in docs/images/growth.png."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...cpu import cpu_name
from ..race import Entry, Race, Workers, race
from ..report import Row, ratio_row
from . import Options, command, threads_text

PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32)
PLOT = Path(__file__).parent.parent.parent / "docs" / "images" / "growth.png"

Curves = dict[str, dict[int, float]]
"""Tokens a second by contender and size."""


def rows(options: Options) -> Iterator[Row]:
    threads = max(options.threads)
    prompts: Curves = {}
    batches: Curves = {}
    with Workers() as workers:
        for dtype in options.dtypes:
            setting: dict[str, Any] = {"model": options.model, "threads": threads, "dtype": dtype}
            names = ("bitlens", "transformers")
            contenders = {name: workers.get(name, **setting) for name in names}
            for n in (8, 16) if options.quick else PROMPTS:
                task = {"n_tokens": n}
                entries = {who: Entry(w, "first_token", task) for who, w in contenders.items()}
                rounds = max(1, options.rounds if n <= 1024 else options.rounds // 3)
                result = race(entries, rounds)
                for name in names:
                    label = f"{name} {dtype}"
                    prompts.setdefault(label, {})[n] = n / result.median(name)
                yield _row(result, f"{dtype}, prompt of {n} tokens", n, threads, dtype)
            for batch in (1, 2) if options.quick else BATCHES:
                task = {
                    "batch": batch,
                    "n_prompt": options.size(128, 4),
                    "n_new": options.size(16, 2),
                }
                entries = {who: Entry(w, "batch_decode", task) for who, w in contenders.items()}
                result = race(entries, max(1, options.rounds // 2))
                for name in names:
                    label = f"{name} {dtype}"
                    batches.setdefault(label, {})[batch] = batch / result.median(name)
                yield _row(result, f"{dtype}, decode of batch {batch}", batch, threads, dtype)
    if not options.quick and find_spec("matplotlib") is not None:
        _draw(prompts, batches, threads)


def _row(result: Race, what: str, tokens: int, threads: int, dtype: str) -> Row:
    return ratio_row(
        result,
        ("transformers", "seconds"),
        ("bitlens", "seconds"),
        suite="growth",
        what=f"{what}, {threads_text(threads)}, against transformers",
        ours=f"{tokens / result.median('bitlens'):.1f} tok/s",
        peer=f"{tokens / result.median('transformers'):.1f} tok/s",
        command=command("growth", threads, dtype),
    )


def _draw(prompts: Curves, batches: Curves, threads: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    titles = ("prompt tokens (prefill)", "sequences in the batch (decode, prompts of 128)")
    for axis, curves, title in zip(axes, (prompts, batches), titles, strict=True):
        for label, curve in curves.items():
            style = "o-" if label.startswith("bitlens") else "s--"
            colour = "tab:blue" if label.endswith("fp32") else "tab:orange"
            axis.plot(list(curve), list(curve.values()), style, color=colour, label=label)
            axis.set_xticks(list(curve), [str(size) for size in curve])
        axis.set(xlabel=title, ylabel="tokens per second")
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(curve), [str(size) for size in curve])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"SmolLM2-135M, {threads_text(threads)}, {cpu_name()}")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)
