"""Inline SVG in few words: a canvas that escapes its text, and linear and logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def power_of_ten(exponent: int) -> str:
    """10 to the exponent with a raised figure, or plainly where that is as short."""
    plain = {-4: "0.0001", -3: "0.001", -2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1000"}
    return plain.get(exponent) or "10" + str(exponent).translate(
        str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    )


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to coordinates from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (
            self._position(self.low),
            self._position(self.high),
            self._position(value),
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def _position(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """At most about `most` round values within the scale, with their labels."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            step = max(1, math.ceil((last - first + 1) / most))
            return [(10.0**e, power_of_ten(e)) for e in range(first, last + 1, step)]
        raw = (self.high - self.low) / most
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step_ = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
        first = math.ceil(self.low / step_ - 1e-9)
        last = math.floor(self.high / step_ + 1e-9)
        return [(i * step_, f"{i * step_:g}") for i in range(first, last + 1)]


def log_scale(values: Sequence[float], start: float, stop: float) -> Scale:
    """Whole decades around the positive ones of `values`, at least one."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    low = math.floor(math.log10(min(positive, default=0.1)))
    high = math.ceil(math.log10(max(positive, default=1.0)))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), start, stop, log=True)


@dataclass
class Canvas:
    """Collects elements; `class_` names are styled by the page's CSS."""

    width: float
    height: float
    label: str
    parts: list[str] = field(default_factory=list)

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        class_: str,
        *,
        title: str = "",
        opacity: float | None = None,
        radius: float = 0,
    ) -> None:
        extra = f' rx="{number(radius)}"' if radius else ""
        extra += f' fill-opacity="{opacity:.3f}"' if opacity is not None else ""
        box = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}"'
        self._add(f'rect {box} height="{number(max(height, 0))}"{extra}', class_, title)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
        self._add(f"line {ends}", class_)

    def polyline(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        joined = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self._add(f'polyline points="{joined}"', class_)

    def circle(self, x: float, y: float, radius: float, class_: str, *, title: str = "") -> None:
        self._add(f'circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"', class_, title)

    def text(self, x: float, y: float, words: str, class_: str = "tick", anchor: str = "") -> None:
        at = f'x="{number(x)}" y="{number(y)}"'
        at += f' text-anchor="{anchor}"' if anchor else ""
        self.parts.append(f'<text {at} class="{class_}">{escape(words)}</text>')

    def _add(self, element: str, class_: str, title: str = "") -> None:
        tag = element.partition(" ")[0]
        inner = f"<title>{escape(title)}</title></{tag}>" if title else f"</{tag}>"
        self.parts.append(f'<{element} class="{class_}">{inner}')

    def __str__(self) -> str:
        size = f'viewBox="0 0 {number(self.width)} {number(self.height)}"'
        return (
            f'<svg {size} role="img" aria-label="{escape(self.label)}">{"".join(self.parts)}</svg>'
        )


def axes(canvas: Canvas, x: Scale | None, y: Scale, y_ticks: int = 5, x_ticks: int = 8) -> None:
    """Horizontal grid lines with labels, and ticks along the bottom if there is an x scale."""
    left, right = (x.start, x.stop) if x else (44.0, canvas.width - 8)
    for value, label in y.ticks(y_ticks):
        canvas.line(left, y(value), right, y(value), "grid")
        canvas.text(left - 6, y(value) + 4, label, anchor="end")
    for value, label in x.ticks(x_ticks) if x else ():
        canvas.text(x(value), y.start + 16, label, anchor="middle")  # type: ignore[misc]
    canvas.line(left, y.start, right, y.start, "axis")
