"""Rows whose winner hangs on one rounding: colliding logits, repeated maxima, tied routers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

from ..formats import format_of
from .fills import Random
from .floats import FormatLike, float_values
from .recipe import Edit, Recipe
from .tensors import MAX_SEED, random_tensors


@st.composite
def _pairs(
    draw: st.DrawFn, source: FormatLike, target: FormatLike, exponent: int
) -> tuple[float, float]:
    """high > low in `source`, both in binade `exponent`, that round to one value of `target`."""
    wide, narrow = format_of(source), format_of(target)
    spare = wide.precision - narrow.precision
    if spare < 2:
        raise ValueError(f"two values of {wide.name} never collide in {narrow.name}")
    centre = draw(
        float_values(
            narrow, min_exponent=exponent, max_exponent=exponent, zero=False, negative=False
        )
    )
    step = 2.0 ** (exponent - wide.precision + 1)
    upper = draw(st.integers(1, 2 ** (spare - 1) - 1))
    lower = draw(st.integers(0, upper - 1))
    return centre + upper * step, centre + lower * step


@st.composite
def top2_collisions(
    draw: st.DrawFn,
    shape: Sequence[int],
    source: FormatLike = "fp32",
    target: FormatLike = "bf16",
    *,
    max_exponent: int = 4,
) -> Recipe:
    """Logits whose two largest differ in `source` and are one value in `target`.

    The same two columns in every row; which of them comes first decides what an argmax over the
    rounded row returns.
    """
    exponent = draw(st.integers(0, max_exponent))
    high, low = draw(_pairs(source, target, exponent))
    first, second = draw(_distinct(shape[-1], 2))
    return _row_of(
        shape, source, draw(st.integers(0, MAX_SEED)), exponent, {first: high, second: low}
    )


@st.composite
def repeated_max(
    draw: st.DrawFn, shape: Sequence[int], format: FormatLike = "fp32", *, max_exponent: int = 4
) -> Recipe:
    """Rows whose maximum occurs two to four times."""
    exponent = draw(st.integers(0, max_exponent))
    value = draw(
        float_values(
            format, min_exponent=exponent, max_exponent=exponent, zero=False, negative=False
        )
    )
    times = draw(st.integers(2, min(4, shape[-1]))) if shape[-1] > 1 else 1
    columns = draw(_distinct(shape[-1], times))
    return _row_of(
        shape, format, draw(st.integers(0, MAX_SEED)), exponent, dict.fromkeys(columns, value)
    )


@st.composite
def router_ties(
    draw: st.DrawFn,
    shape: Sequence[int],
    source: FormatLike = "fp32",
    target: FormatLike = "bf16",
    *,
    top_k: int = 2,
    max_exponent: int = 4,
) -> Recipe:
    """Router logits [tokens, experts] whose places top_k and top_k + 1 are one value in `target`.

    In `source` they are equal or differ by less than a rounding to `target` can see. Needs more
    experts than top_k.
    """
    experts = shape[-1]
    if not 0 < top_k < experts:
        raise ValueError(
            f"router_ties: top_k {top_k} of {experts} experts leaves no one to tie with"
        )
    exponent = draw(st.integers(0, max_exponent))
    columns = draw(_distinct(experts, top_k + 1))
    high, low = draw(_pairs(source, target, exponent))
    chosen = {columns[0]: high, columns[1]: high if draw(st.booleans()) else low}
    # The clear winners, each in its own binade above.
    for place, column in enumerate(columns[2:], start=1):
        chosen[column] = 2.0 ** (exponent + place)
    return _row_of(shape, source, draw(st.integers(0, MAX_SEED)), exponent, chosen)


@st.composite
def masked_logits(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] = (-4, 4),
) -> Recipe:
    """Rows with columns of -inf; where there are two or more, sometimes one that is all -inf."""
    *rows, n = shape
    base = draw(random_tensors(shape, format, exponents=exponents))
    hidden = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n - 1, unique=True))
    edits = [Edit((*[None] * len(rows), column), -math.inf) for column in hidden]
    if rows and rows[0] > 1 and draw(st.booleans()):
        edits.append(Edit((0, *[None] * len(rows)), -math.inf))
    return Recipe(base.shape, base.format, base.fill, tuple(edits))


def _row_of(
    shape: Sequence[int], format: FormatLike, seed: int, exponent: int, chosen: dict[int, float]
) -> Recipe:
    """The chosen columns, the same in every row, and random elements that no rounding lifts to
    2**exponent.
    """
    leading = (None,) * (len(shape) - 1)
    edits = tuple(Edit((*leading, column), value) for column, value in chosen.items())
    fill = Random(seed, None, (exponent - 6, exponent - 2))
    return Recipe(tuple(shape), format_of(format).name, fill, edits)


def _distinct(n: int, count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, n - 1), min_size=count, max_size=count, unique=True)
