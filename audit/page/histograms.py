"""Signed errors by kind of operation: the unusual ones are shown, the others fold away."""

from __future__ import annotations

from dataclasses import dataclass

from ...precision.charts import Canvas, Figure, Scale, figure
from ..result import AuditResult, UlpHistogram
from .charts import percent

_Z, _BIAS = 5.0, 0.01
"""Where a mean is unusual: this many standard errors and this much of an ULP away from 0."""


@dataclass(frozen=True)
class Histograms:
    """All of them, with one table."""

    unusual: tuple[Figure, ...]
    others: tuple[Figure, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def histograms(result: AuditResult) -> Histograms | None:
    """None where no error is known."""
    found = result.histograms
    if not found:
        return None
    broken = {op.kind for op in result.violated}
    apart = [is_unusual(h) or h.kind in broken for h in found]
    rows = [
        (h.kind, h.format, f"{h.values:,}", f"{h.bias_ulp:+.4f}", f"{h.bias_z:+.1f}",
         f"{percent((h.below + h.above) / max(h.values, 1))} beyond ±{h.limit:g}")
        for h in found
    ]  # fmt: skip
    return Histograms(
        tuple(_histogram(h) for h, other in zip(found, apart, strict=True) if other),
        tuple(_histogram(h) for h, other in zip(found, apart, strict=True) if not other),
        ("operation", "ULP of", "values", "bias, ULP", "z", "not drawn"),
        tuple(rows),
    )


def is_unusual(found: UlpHistogram) -> bool:
    """Whether its mean lies further from 0 than chance puts it, by an amount that matters."""
    return abs(found.bias_z) >= _Z and abs(found.bias_ulp) >= _BIAS


def _histogram(found: UlpHistogram) -> Figure:
    """One kind's signed errors; small, so one drawing serves both widths."""
    total = found.values

    def draw(_: float) -> Canvas:
        width, height = 300.0, 130.0
        canvas = Canvas(width, height, f"{found.kind}: signed error in ULP")
        peak = max([*found.counts, 1])
        step = (width - 20) / len(found.counts)
        y = Scale(0, peak, height - 24, 8)
        for i, count in enumerate(found.counts):
            low = -found.limit + i * 2 * found.limit / len(found.counts)
            high = low + 2 * found.limit / len(found.counts)
            title = f"{low:+.3g} to {high:+.3g} ULP: {count:,}"
            top = y(count)
            canvas.rect(10 + i * step, top, step - 0.8, y.start - top, "bar", title=title)
        middle = 10 + (width - 20) / 2
        canvas.line(10, y.start, width - 10, y.start, "axis")
        for share, label in ((0.0, f"−{found.limit:g}"), (0.5, "0"), (1.0, f"+{found.limit:g}")):
            anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
            canvas.text(10 + share * (width - 20), height - 8, label, anchor=anchor)
        shift = min(max(found.bias_ulp / found.limit, -1.0), 1.0) * (width - 20) / 2
        canvas.line(middle, 4, middle, y.start, "zero")
        canvas.line(middle + shift, 4, middle + shift, y.start, "mean")
        return canvas

    beyond = (found.below + found.above) / max(total, 1)
    caption = (
        f"bias {found.bias_ulp:+.4f} ULP (z {found.bias_z:+.1f}) · {total:,} values · "
        f"{percent(beyond)} beyond ±{found.limit:g}"
    )
    return figure(found.kind, caption, draw, (), ())
