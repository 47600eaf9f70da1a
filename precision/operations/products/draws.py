"""Draws the factors of products; m rows, k inner length, n columns."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.dot import DotFactor, shortest
from ...strategies.drawing import (
    ROWS,
    Drawing,
    Formats,
    inner_length,
    many_terms,
    operand_beside,
    span_within,
)
from ...strategies.fills import Constant, Listed
from ...strategies.operands import KINDS, LISTED
from ...strategies.positions import tile_sizes
from ...strategies.recipe import Recipe
from ...strategies.sums import stagnating_terms
from ...strategies.tensors import MAX_SEED, exact_lattice


def _matmul(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    fmt = formats.storage
    m, n = draw(ROWS), draw(ROWS)
    if kind == "ill_conditioned_dot":
        widest = min(60, 2 * (fmt.max_exponent - 8))
        kappa = 2.0 ** draw(st.integers(2, max(2, widest)))
        k = max(shortest(kappa, fmt), draw(tile_sizes(max_size=min(max_size, 65))))
        seed = draw(st.integers(0, MAX_SEED))
        a = Recipe((m, k), fmt.name, DotFactor(kappa, "a", 1, seed))
        return {"a": a, "b": Recipe((k, n), fmt.name, DotFactor(kappa, "b", 0, seed))}
    k = inner_length(draw, kind, max_size)
    if kind == "stagnating_sums":
        ones = Recipe((many_terms(draw, max_size), n), fmt.name, Constant(1.0))
        terms = stagnating_terms((m, ones.shape[0]), 1, fmt, formats.accumulate)
        return {"a": terms, "b": ones}
    if kind == "exact_lattice":
        a, b = draw(exact_lattice(m, k, n, fmt, accumulate=formats.accumulate.name))
        return {"a": a, "b": b}
    span = span_within((-4, 1), fmt, max(1, (fmt.max_exponent - 10) // 2))
    lifted = (0, span.widest[1] // 2) if kind == "subnormals" else (-4, 1)
    inputs = {
        "a": draw(KINDS[kind]((m, k), fmt, span)),
        "b": draw(operand_beside(kind, (k, n), fmt, lifted)),
    }
    if kind == "extremes" or draw(st.booleans()):
        inputs["bias"] = draw(operand_beside(kind, (n,), fmt, (-4, 1)))
    return inputs


def _conv1d(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """Channels in groups, and a window that fits: causal, centred, strided, dilated."""
    fmt = formats.storage
    groups, taps = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 3, 4]))
    each = draw(st.sampled_from([1, 2]))
    channels = groups * draw(st.sampled_from([1, 2, 5]))
    length = inner_length(draw, kind, min(max_size, 33))
    span = span_within((-4, 1), fmt, max(1, (fmt.max_exponent - 10) // 2))
    inputs: dict[str, Any] = {
        "x": draw(KINDS[kind]((draw(st.sampled_from([1, 2])), channels, length), fmt, span)),
        "weight": draw(
            operand_beside(kind, (each * groups, channels // groups, taps), fmt, (-4, 1))
        ),
    }
    dilation = draw(st.sampled_from([1, 2]))
    reach = dilation * (taps - 1)
    if reach >= length or draw(st.booleans()):
        inputs["padding"] = draw(st.sampled_from([(reach, 0), (reach, reach)]))
    if dilation > 1 and taps > 1:
        inputs["dilation"] = dilation
    if groups > 1:
        inputs["groups"] = groups
    if draw(st.booleans()):
        inputs["stride"] = draw(st.sampled_from([1, 2]))
    if kind in LISTED or draw(st.booleans()):
        beside = "extremes" if kind in LISTED else kind
        inputs["bias"] = draw(operand_beside(beside, (each * groups,), fmt, (-4, 1)))
    return inputs


def _embedding(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    fmt = formats.storage
    rows = draw(st.integers(1, 3))
    table = (draw(st.integers(1, 3)), inner_length(draw, kind, min(max_size, 65)))
    ids = draw(st.lists(st.integers(0, table[0] - 1), min_size=rows, max_size=rows))
    span = span_within((-4, 4), fmt, max(1, (fmt.max_exponent - 10) // 2))
    inputs: dict[str, Any] = {
        "ids": Recipe((rows,), "int64", Listed(tuple(map(float, ids)))),
        "weight": draw(KINDS[kind](table, fmt, span)),
    }
    if draw(st.booleans()):
        inputs["scale"] = draw(st.sampled_from([55.42562584220407, 1.0, 0.0, -2.0]))
    return inputs


DRAWINGS = {
    "matmul": Drawing(_matmul, ("exact_lattice", "ill_conditioned_dot", "stagnating_sums")),
    "conv1d": Drawing(_conv1d),
    "embedding": Drawing(_embedding),
}
