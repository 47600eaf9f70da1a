"""Tensors that strain a computation, as recipes: range, massive channels, exact integers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

from ..formats import format_of
from .fills import Constant, Integers, Listed, Near, Random, Ties
from .floats import FormatLike, float_values
from .recipe import Edit, Recipe

MAX_SEED = 2**16 - 1


@st.composite
def random_tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] = (-4, 1),
    signed: bool = True,
) -> Recipe:
    """Elements of up to all significand bits with exponents in a part of `exponents`."""
    fmt = format_of(format)
    bits = min(draw(st.integers(1, 2 * fmt.precision)), fmt.precision)
    bounds = draw(_exponent_range(*exponents))
    seed = draw(st.integers(0, MAX_SEED))
    return Recipe(tuple(shape), fmt.name, Random(seed, bits, bounds, signed))


@st.composite
def listed_tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    elements: st.SearchStrategy[float] | None = None,
    exponents: tuple[int, int] = (-4, 1),
) -> Recipe:
    """Every element drawn by itself: for small tensors, which shrink element by element."""
    fmt = format_of(format)
    if elements is None:
        elements = float_values(fmt, min_exponent=exponents[0], max_exponent=exponents[1])
    n = math.prod(shape)
    values = draw(st.lists(elements, min_size=n, max_size=n))
    return Recipe(tuple(shape), fmt.name, Listed(tuple(values)))


@st.composite
def constant_tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] = (-4, 1),
) -> Recipe:
    """One value everywhere: rounding errors all of one sign."""
    value = float_values(format, min_exponent=exponents[0], max_exponent=exponents[1], zero=False)
    return Recipe(tuple(shape), format_of(format).name, Constant(draw(value)))


@st.composite
def wide_dynamic_range(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] | None = None,
) -> Recipe:
    """Exponents spread over at least half of `exponents` (default: the format's normal range)."""
    fmt = format_of(format)
    low, high = exponents or (fmt.min_exponent, fmt.max_exponent)
    margin = (high - low) // 4
    bottom = draw(st.integers(low, low + margin))
    top = draw(st.integers(high - margin, high))
    seed = draw(st.integers(0, MAX_SEED))
    return Recipe(tuple(shape), fmt.name, Random(seed, None, (bottom, top)))


@st.composite
def tie_tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    source: FormatLike = "fp32",
    target: FormatLike = "bf16",
    *,
    away: int = 0,
    exponents: tuple[int, int] = (-4, 1),
) -> Recipe:
    """Tensors of `rounding_ties` (away=0) or `near_ties` (up to `away` ULPs of `source` off)."""
    bounds = draw(_exponent_range(*exponents))
    seed = draw(st.integers(0, MAX_SEED))
    fill = Ties(seed, format_of(target).name, away, bounds)
    return Recipe(tuple(shape), format_of(source).name, fill)


@st.composite
def massive_activations(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] = (-4, 1),
    max_exponent: int | None = None,
) -> Recipe:
    """Ordinary channels and one to three that are 2**6 to 2**12 times larger, alike in all rows.

    What residual streams look like (Sun et al. 2024, "Massive activations in large language
    models"): the large channels own a sum of squares, the others the model's information. None of
    them reaches 2**(max_exponent + 1), by default the format's end.
    """
    fmt = format_of(format)
    base = draw(random_tensors(shape, fmt, exponents=exponents))
    room = (fmt.max_exponent if max_exponent is None else max_exponent) - exponents[1]
    highest = max(0, min(12, room))
    edits = []
    for _ in range(draw(st.integers(1, min(3, shape[-1])))):
        channel = draw(st.integers(0, shape[-1] - 1))
        rise = draw(st.integers(min(6, highest), highest))
        value = draw(
            float_values(
                fmt,
                min_exponent=exponents[1] + rise,
                max_exponent=exponents[1] + rise,
                zero=False,
            )
        )
        edits.append(Edit((None,) * (len(shape) - 1) + (channel,), value))
    return Recipe(base.shape, base.format, base.fill, tuple(edits))


@st.composite
def exact_lattice(
    draw: st.DrawFn,
    rows: int,
    inner: int,
    columns: int,
    format: FormatLike = "bf16",
    *,
    accumulate: FormatLike = "fp32",
) -> tuple[Recipe, Recipe]:
    """Integer a [rows, inner], b [inner, columns] whose product every order computes exactly.

    sum |a b| stays within 2**p of the accumulator (24 bits for fp32), so its order cannot matter,
    while sums pass what a narrower accumulator can count (2**8 for bf16) where `inner` allows.
    """
    fmt, accumulator = format_of(format), format_of(accumulate)
    budget = 2**accumulator.precision // max(1, inner)
    if budget < 1:
        raise ValueError(f"exact_lattice: {inner} products of 1 overflow {accumulator.name}")
    widest = 2**fmt.precision
    largest_a = draw(st.integers(1, min(widest, math.isqrt(budget))))
    largest_b = draw(st.integers(1, min(widest, budget // largest_a)))
    seed_a, seed_b = draw(st.integers(0, MAX_SEED)), draw(st.integers(0, MAX_SEED))
    a = Recipe((rows, inner), fmt.name, Integers(2 * seed_a, largest_a))
    b = Recipe((inner, columns), fmt.name, Integers(2 * seed_b + 1, largest_b))
    return a, b


@st.composite
def far_from_zero(
    draw: st.DrawFn,
    shape: Sequence[int],
    format: FormatLike = "fp32",
    *,
    exponents: tuple[int, int] = (4, 20),
) -> Recipe:
    """Elements of one binade that differ by a few steps: a mean that is large against the spread.

    The steps are ULPs or some power of two of them, as many as the format leaves room for.
    """
    fmt = format_of(format)
    exponent = draw(st.integers(*exponents))
    coarser = draw(st.integers(0, max(0, fmt.precision - 6)))
    step = 2.0 ** (exponent - fmt.precision + 1 + coarser)
    places = 2 ** (fmt.precision - 1 - coarser)
    count = min(draw(st.integers(2, 4)), places)
    centre = 2.0**exponent + step * draw(st.integers(0, places - count))
    sign = -1.0 if draw(st.booleans()) else 1.0
    fill = Near(draw(st.integers(0, MAX_SEED)), sign * centre, sign * step, count)
    return Recipe(tuple(shape), fmt.name, fill)


def extreme_tensors(shape: Sequence[int], format: FormatLike = "fp32") -> st.SearchStrategy[Recipe]:
    """Each element the format's largest, its smallest, 0 or 1, of either sign."""
    fmt = format_of(format)
    ends = [1.0, 0.0, fmt.largest, fmt.smallest_subnormal]
    signed = st.sampled_from([*ends, *(-end for end in ends)])
    return listed_tensors(shape, fmt, elements=signed)


@st.composite
def subnormal_tensors(draw: st.DrawFn, shape: Sequence[int], format: FormatLike = "fp32") -> Recipe:
    """Every element below the format's smallest normal."""
    fmt = format_of(format)
    lowest = fmt.min_exponent - fmt.precision + 1
    bottom = draw(st.integers(lowest, fmt.min_exponent - 1))
    seed = draw(st.integers(0, MAX_SEED))
    return Recipe(tuple(shape), fmt.name, Random(seed, None, (bottom, fmt.min_exponent - 1)))


@st.composite
def _exponent_range(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    """A part of [low, high] that shrinks to the single exponent nearest 0."""
    bottom = draw(st.integers(low, high))
    width = draw(st.integers(0, high - bottom))
    return bottom, bottom + width
