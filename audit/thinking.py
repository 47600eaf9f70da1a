"""The curve of `bitlens think` as a picture."""

from __future__ import annotations

from pathlib import Path

from ..model.thinking import Curve
from .postmortem.plot import require_matplotlib

METHODS = {
    "single": "one sample",
    "majority": "majority of n",
    "chosen": "best of n by its log-probability",
    "weighted": "vote weighted by it",
    "passed": "any of n (oracle)",
}


def plot(curve: Curve, path: Path, title: str) -> None:
    """Writes accuracy over the tokens that each method spends on a problem, with its interval.

    Raises RuntimeError where matplotlib is missing.
    """
    pyplot = require_matplotlib()
    figure, axis = pyplot.subplots(figsize=(7.5, 4.5))
    for i, (name, label) in enumerate(METHODS.items()):
        found = [(point, getattr(point, name)) for point in curve.points]
        found = [(point, estimate) for point, estimate in found if estimate is not None]
        if not found:
            continue
        tokens = [point.tokens * (1 if name == "single" else point.n) for point, _ in found]
        means = [estimate.mean for _, estimate in found]
        reach = [
            [max(0.0, e.mean - e.interval.low) for _, e in found],
            [max(0.0, e.interval.high - e.mean) for _, e in found],
        ]
        dotted = ":" if name == "passed" else "-"
        axis.errorbar(
            tokens, means, yerr=reach, marker="o", capsize=3, linestyle=dotted, color=f"C{i}",
            label=label,
        )  # fmt: skip
    axis.set(xlabel="tokens a problem", ylabel="accuracy", ylim=(-0.02, 1.02), title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
