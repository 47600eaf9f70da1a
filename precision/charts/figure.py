"""A chart drawn twice, for a desk and for a telephone, so that its letters stay readable on both,
and the table that says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .svg import Canvas

WIDE, NARROW = 960.0, 340.0


@dataclass(frozen=True)
class Figure:
    """One or several drawings with one table.

    Attributes:
        wide, narrow: SVG; the same text where one drawing serves both widths.
        legend: Pairs of a CSS class and its words.
    """

    title: str
    caption: str
    wide: str
    narrow: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...] = ()


def figure(
    title: str,
    caption: str,
    draw: Callable[[float], Canvas],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    legend: Sequence[tuple[str, str]] = (),
) -> Figure:
    """Returns what `draw` makes of both widths, with its table."""
    table = tuple(tuple(row) for row in rows)
    wide, narrow = str(draw(WIDE)), str(draw(NARROW))
    return Figure(title, caption, wide, narrow, tuple(columns), table, tuple(legend))
