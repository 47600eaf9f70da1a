"""The page's charts, each with its table; None where there is nothing to draw."""

from __future__ import annotations

import math

from ...precision.charts import Canvas, Figure, Scale, axes, figure, log_scale
from ..result import AuditResult, OpFinding


def short(value: float | None, digits: int = 3) -> str:
    """A number for a table: few digits, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share with the digits that matter; below one in a million, none do."""
    if share is None:
        return "–"
    size = abs(share) * 100
    if abs(share) < 1e-6:
        return "0%"
    return f"{share:.0%}" if size >= 10 else f"{share:.2%}" if size >= 0.1 else f"{size:.2g}%"


def used(utilisation: float) -> str:
    """A share of the permitted error; multiples of it where it is exceeded by far."""
    if math.isinf(utilisation):
        return "∞"
    return f"{utilisation:.3g}×" if utilisation >= 2 else percent(utilisation)


def layers(result: AuditResult) -> list[int]:
    return sorted({op.layer for op in result.ops if op.layer is not None})


def growth(result: AuditResult) -> Figure | None:
    """The residual stream's error after each block, and what the block's operations create."""
    numbers = layers(result)
    inside = [[op for op in result.ops if op.layer == layer] for layer in numbers]
    free = [ops[-1].free_error for ops in inside]
    created = [max(op.created_error for op in ops) for ops in inside]
    if not any([*free, *created]):
        return None

    def draw(width: float) -> Canvas:
        height = 270.0 if width > 500 else 230.0
        canvas = Canvas(width, height, "Error of the residual stream by layer, logarithmic")
        x = Scale(0, max(numbers[-1], 1), 44, width - 14)
        y = log_scale([*free, *created], height - 26, 12)
        axes(canvas, x, y, x_ticks=8 if width > 500 else 5)
        for values, class_ in ((created, "b"), (free, "a")):
            points = [(x(n), y(v)) for n, v in zip(numbers, values, strict=True) if v > 0]
            canvas.polyline(points, f"series {class_}")
            for n, value in zip(numbers, values, strict=True):
                if value > 0:
                    title = f"layer {n}: {value:.3g}"
                    canvas.circle(x(n), y(value), 3, f"dot {class_}", title=title)
        return canvas

    worst = [max(ops, key=lambda op: op.created_error).kind for ops in inside]
    rows = [
        (str(n), short(f), short(c), kind)
        for n, f, c, kind in zip(numbers, free, created, worst, strict=True)
    ]
    return figure(
        "Error growth by layer",
        "Relative error ‖b − a‖ / ‖a‖ of the residual stream after each block of the whole run, "
        "and the most that a single operation of that block creates on A's own inputs. "
        "What lies above the second line has accumulated.",
        draw,
        ("layer", "carried", "created", "mostly by"),
        rows,
        (("a", "carried in the residual stream"), ("b", "created by one operation")),
    )


def heatmap(result: AuditResult) -> Figure | None:
    """Created error by layer and kind of operation; violations are marked."""
    numbers = layers(result)
    by_place = {(op.layer, op.kind): op for op in result.ops}
    kinds = [kind for kind in result.kinds if any((n, kind) in by_place for n in numbers)]
    errors = [op.created_error for op in result.ops if op.layer is not None and op.created_error]
    if not errors:
        return None
    low, high = min(errors), max(errors)
    levels = Scale(low, high, 0.12, 1.0, log=True)

    def draw(width: float) -> Canvas:
        left = 120.0 if width > 500 else 92.0
        cell = (width - left - 8) / max(len(numbers), 1)
        row = 20.0 if width > 500 else 18.0
        canvas = Canvas(width, row * len(kinds) + 24, "Created error by layer and operation")
        for i, kind in enumerate(kinds):
            canvas.text(left - 8, i * row + row * 0.72, kind, "tick", anchor="end")
            for j, n in enumerate(numbers):
                op = by_place.get((n, kind))
                if op is not None:
                    _cell(canvas, left + j * cell, i * row, cell, row, op, levels)
        step = max(1, math.ceil(len(numbers) * 22 / (width - left)))
        for j, n in enumerate(numbers[::step]):
            x = left + (j * step + 0.5) * cell
            canvas.text(x, row * len(kinds) + 16, str(n), "tick", anchor="middle")
        return canvas

    rows = []
    for kind in kinds:
        ops = [op for op in result.ops if op.kind == kind]
        worst = max(ops, key=lambda op: op.created_error)
        mean = sum(op.created_error for op in ops) / len(ops)
        outside = sum(op.outside for op in ops)
        rows.append((kind, short(mean), short(worst.created_error), worst.address, f"{outside:,}"))
    return figure(
        "Which operation creates it",
        "Error that each operation creates on A's inputs, layers from left to right; the darker, "
        "the more. A red frame marks a value outside the operation's contract.",
        draw,
        ("operation", "mean", "most", "at", "values outside"),
        rows,
        (("ramp", f"{low:.1e} to {high:.1e}, logarithmic"), ("bad", "violation")),
    )


def _cell(
    canvas: Canvas, x: float, y: float, width: float, height: float, op: OpFinding, levels: Scale
) -> None:
    gap = 1.0 if width > 7 else 0.5
    title = f"{op.name}: creates {op.created_error:.3g}"
    if op.values:
        title += f", uses {used(op.utilisation)} of its bound"
    shade = levels(op.created_error) if op.created_error > 0 else 0.0
    size = (width - gap, height - gap)
    canvas.rect(x, y, *size, "heat", title=title, opacity=shade, radius=min(2.0, width / 4))
    if not op.ok:
        canvas.rect(x + 0.5, y + 0.5, size[0] - 1, size[1] - 1, "outside", title=title)


def utilisation(result: AuditResult) -> Figure | None:
    """The most of its bound that each kind of operation used."""
    groups = [[op for op in result.judged if op.kind == kind] for kind in result.kinds]
    worst = [max(ops, key=lambda op: op.utilisation) for ops in groups if ops]
    if not worst:
        return None
    top = max([1.0, *(min(op.utilisation, 2.0) for op in worst)]) * 1.12

    def draw(width: float) -> Canvas:
        left = 120.0 if width > 500 else 92.0
        row = 24.0
        canvas = Canvas(width, row * len(worst) + 22, "Share of the permitted error used")
        x = Scale(0, top, left, width - 54)
        for i, op in enumerate(worst):
            y = i * row + 4
            canvas.text(left - 8, y + 13, op.kind, anchor="end")
            canvas.rect(left, y, x(top) - left, 16, "track", radius=3)
            title = f"{op.name}: {used(op.utilisation)}"
            length = max(x(op.utilisation) - left, 1.5)
            canvas.rect(
                left, y, length, 16, "bar bad" if not op.ok else "bar", title=title, radius=3
            )
            canvas.text(x(top) + 6, y + 13, used(op.utilisation))
        canvas.line(x(1), 0, x(1), row * len(worst) + 4, "limit")
        canvas.text(x(1), row * len(worst) + 18, "bound", anchor="middle")
        return canvas

    rows = []
    for op in worst:
        values = sum(other.values for other in result.judged if other.kind == op.kind)
        rows.append((op.kind, _contract(op), f"{values:,}", used(op.utilisation), op.address))
    return figure(
        "How much of the permitted error is used",
        "Largest error over the contract's own bound, by kind of operation. Beyond the line a "
        "violation is proven; far below it the bound is loose, not the operation good. Close to "
        "100% is normal where the enclosure is tight: a right result may lie at its very end.",
        draw,
        ("operation", "contract", "values checked", "most used", "at"),
        rows,
    )


def _contract(op: OpFinding) -> str:
    c = op.contract
    casts = ", ".join(c.casts) or "none"
    return f"{c.op}: {c.storage}, compute {c.compute}, accumulate {c.accumulate}, rounds {casts}"


def margins(result: AuditResult) -> Figure | None:
    """Positions and flips by A's margin."""
    bins = result.flips.margins
    if not any(b.positions for b in bins):
        return None

    def draw(width: float) -> Canvas:
        height = 220.0
        canvas = Canvas(width, height, "Positions and flips by margin")
        y = log_scale([0.5, *(float(b.positions) for b in bins)], height - 30, 12)
        axes(canvas, None, y, 4)
        step = (width - 52) / max(len(bins), 1)
        for i, b in enumerate(bins):
            x = 44 + i * step
            title = f"margin {b.low:g} to {b.high:g}: {b.flips:,} of {b.positions:,} flip"
            for count, class_ in ((b.positions, "bar soft"), (b.flips, "bar flip")):
                if count:
                    top = y(count)
                    canvas.rect(x + 2, top, step - 4, y.start - top, class_, title=title, radius=2)
            if i % (1 if width > 500 else 2) == 0:
                canvas.text(x + step / 2, height - 12, f"{b.low:g}+", anchor="middle")
        return canvas

    rows = [
        (f"{b.low:g} to {b.high:g}", f"{b.positions:,}", f"{b.flips:,}",
         percent(b.flips / b.positions if b.positions else None))
        for b in bins
    ]  # fmt: skip
    return figure(
        "Flips by margin",
        "A's best logit minus its second best, bins doubling in width; counts on a logarithmic "
        "axis. Rounding flips tokens that were close; flips at wide margins are a fault's mark.",
        draw,
        ("margin", "positions", "flips", "share"),
        rows,
        (("soft", "positions"), ("flip", "of which flip")),
    )
