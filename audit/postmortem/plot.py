"""The rates of `run_postmortem` as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .experiment import EXACT_ON_ROUNDED, FAULTS, Rate
from .shares import PANELS


def require_matplotlib() -> Any:
    """matplotlib's pyplot, drawing to files. Raises RuntimeError where it is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise RuntimeError("a plot needs matplotlib: pip install 'bitlens[bench]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(rates: Sequence[Rate], path: Path, title: str) -> None:
    """Writes shares over shard counts, a panel for each thing counted and a line a sampler."""
    pyplot = require_matplotlib()
    samplers = list(dict.fromkeys(rate.sampler for rate in rates))
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(12, 5.2), sharex=True)
    for axis, (name, share) in zip(axes, PANELS.items(), strict=True):
        for i, sampler in enumerate(samplers):
            own = [rate for rate in rates if rate.sampler == sampler]
            exact = sampler not in FAULTS
            axis.plot(
                range(len(own)),
                [100 * share(rate) for rate in own],
                marker="s" if exact else "o",
                color="black" if exact else f"C{i}",
                linestyle=":" if sampler == EXACT_ON_ROUNDED else "-",
                label=sampler,
            )
        counts = list(dict.fromkeys(rate.shards for rate in rates))
        axis.set_xticks(range(len(counts)), map(str, counts))
        axis.set(title=name, xlabel="shards of the vocabulary", ylim=(-0.2, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("% of prompts (right: of sampled tokens)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, fontsize=8)
    figure.suptitle(title)
    figure.tight_layout(rect=(0, 0.2, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
