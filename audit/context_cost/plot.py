"""`context_cost` as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..postmortem.plot import require_matplotlib
from .cost import ContextCost


def plot(
    costs: Sequence[ContextCost],
    base: ContextCost,
    seconds: Mapping[int, float],
    path: Path,
    title: str,
) -> None:
    """Writes operations and their growth over `base` by context length, measured time beside them.

    Raises RuntimeError where matplotlib is missing.
    """
    pyplot = require_matplotlib()
    lengths = [cost.n_tokens for cost in costs]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    lines = {
        "attention": [cost.attention_flops for cost in costs],
        "linears": [cost.linear_flops for cost in costs],
        "whole model": [cost.model_flops for cost in costs],
    }
    for name, values in lines.items():
        left.plot(lengths, values, marker="o", label=name)
    left.set(xlabel="context, tokens", ylabel="FLOPs of a prefill", xscale="log", yscale="log")
    attention = [cost.attention_flops / base.attention_flops for cost in costs]
    whole = [cost.model_flops / base.model_flops for cost in costs]
    right.plot(lengths, attention, marker="o", label="attention alone")
    right.plot(lengths, whole, marker="o", color="C2", label="whole model")
    if base.n_tokens in seconds:
        timed = [n for n in lengths if n in seconds]
        ratios = [seconds[n] / seconds[base.n_tokens] for n in timed]
        right.plot(timed, ratios, marker="s", color="black", linestyle=":", label="measured time")
    right.set(xlabel="context, tokens", ylabel=f"times {base.n_tokens:,} tokens")
    right.set(xscale="log", yscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
