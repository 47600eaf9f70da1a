"""Draws the inputs of one operation, in the formats of a contract."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ..formats import Format
from .operands import KINDS, LISTED, Span
from .positions import tile_sizes
from .recipe import Recipe
from .tensors import extreme_tensors, random_tensors

ROWS = st.sampled_from([1, 2, 3])


@dataclass(frozen=True)
class Formats:
    """The formats of a contract whose inputs are drawn."""

    storage: Format
    compute: Format
    accumulate: Format


def _all(names: list[str], arguments: Collection[str]) -> list[str]:
    return names


def _as_drawn(recipes: dict[str, Any], dropped: set[str]) -> dict[str, Any]:
    return recipes


@dataclass(frozen=True)
class Drawing:
    """The way one operation's inputs are drawn.

    Attributes:
        inputs: Called as inputs(draw, formats, kind, max_size); returns recipes by argument.
        kinds: Kinds of inputs beside those of the main operand.
        kinds_with: The kinds that are left where only some arguments are taken.
        without: What drawn recipes become where some optional arguments are dropped, before these
            are taken out.
        sometimes: Optional arguments that are left out half of the time, of an implementation that
            can do without.
    """

    inputs: Callable[[st.DrawFn, Formats, str, int], dict[str, Any]]
    kinds: tuple[str, ...] = ()
    kinds_with: Callable[[list[str], Collection[str]], list[str]] = _all
    without: Callable[[dict[str, Any], set[str]], dict[str, Any]] = _as_drawn
    sometimes: tuple[str, ...] = ()


def operand_beside(
    kind: str, shape: tuple[int, ...], fmt: Format, exponents: tuple[int, int]
) -> st.SearchStrategy[Recipe]:
    """An operand that is not the main one: of ordinary numbers, or at the ends beside its like."""
    if kind == "extremes":
        return extreme_tensors(shape, fmt)
    return random_tensors(shape, fmt, exponents=exponents)


def inner_length(draw: st.DrawFn, kind: str, max_size: int) -> int:
    """An inner length: on tile boundaries, or short where elements are drawn one by one."""
    if kind in LISTED:
        return draw(st.integers(1, min(max_size, 8)))
    return draw(tile_sizes(max_size=max_size))


def many_terms(draw: st.DrawFn, max_size: int) -> int:
    """So many terms that a chain of all and one of blocks of 256 err differently."""
    return min(draw(st.integers(1024, 2048)), max(2, 2 * max_size))


def span_within(usual: tuple[int, int], fmt: Format, reach: int) -> Span:
    """Exponents in the format's range, no further than `reach` from 0."""
    low, high = max(-reach, fmt.min_exponent), max(0, min(reach, fmt.max_exponent - 2))
    return Span((max(usual[0], low), min(usual[1], high)), (low, high))


def gate_span(fmt: Format) -> Span:
    """Exponents of gates from where exp(-x) is 1 to where it overflows."""
    return Span((-6, 3), (max(-30, fmt.min_exponent), min(7, (fmt.max_exponent - 1) // 2)))


def unary_inputs(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """x of an elementwise operation."""
    fmt = formats.storage
    shape = (draw(ROWS), inner_length(draw, kind, min(max_size, 65)))
    return {"x": draw(KINDS[kind](shape, fmt, gate_span(fmt)))}
