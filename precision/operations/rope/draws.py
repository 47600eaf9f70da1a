"""Draws rotations: their vectors, positions and frequencies, or tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import ROWS, Drawing, Formats, span_within
from ...strategies.fills import Listed
from ...strategies.operands import KINDS, LISTED
from ...strategies.positions import long_rope_positions
from ...strategies.recipe import Recipe
from ...strategies.tensors import random_tensors

_OWN_KINDS = ("long_rope_positions", "scattered_positions", "rotation_tables")


def _rope(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    fmt = formats.storage
    tokens, d_head = draw(ROWS), draw(st.sampled_from([2, 4, 64]))
    if kind in LISTED:
        d_head = 2
    drawn_as = "random" if kind in _OWN_KINDS else kind
    x = draw(KINDS[drawn_as]((tokens, d_head), fmt, span_within((-4, 3), fmt, 60)))
    if kind == "rotation_tables":
        table = random_tensors((tokens, d_head // 2), fmt, exponents=(-6, -1))
        return {"x": x, "cos": draw(table), "sin": draw(table)}
    if kind == "scattered_positions":
        places = draw(st.lists(_POSITIONS, min_size=tokens, max_size=tokens))
        positions = Recipe((tokens,), "int64", Listed(tuple(map(float, places))))
    else:
        longest = 2**20 if kind == "long_rope_positions" else 2**12
        positions = draw(long_rope_positions(tokens, max_position=longest))
    return {"x": x, "positions": positions} | draw(_rope_options(d_head // 2))


@st.composite
def _rope_options(draw: st.DrawFn, half: int) -> dict[str, Any]:
    """Mostly a base; else frequencies as scalings give them, often with a factor."""
    options: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 3:
        frequency = st.sampled_from([1.0, 0.0, 2.0**-10, 0.7, 1e-4])
        options["inv_freq"] = tuple(draw(st.lists(frequency, min_size=half, max_size=half)))
    else:
        options["theta"] = draw(st.sampled_from([10000.0, 500000.0, 1.0]))
    if draw(st.integers(0, 3)) == 3:
        options["attention_factor"] = draw(st.sampled_from([1.0, 1.25, 0.7, 0.0]))
    return options


_POSITIONS = (
    st.sampled_from([0, 2**31 - 1])
    | st.sampled_from([1, 255, 2049, 2**24 + 1])
    | st.integers(0, 2**17)
)


def _kinds_with(names: list[str], arguments: Collection[str]) -> list[str]:
    """Tables need both of theirs, everything else positions."""
    if not {"cos", "sin"} <= set(arguments):
        return [name for name in names if name != "rotation_tables"]
    return names if "positions" in arguments else ["rotation_tables"]


def _without(recipes: dict[str, Any], dropped: set[str]) -> dict[str, Any]:
    """A base stands in for frequencies that are not taken."""
    if "inv_freq" in dropped and "inv_freq" in recipes and "theta" not in dropped:
        return {**recipes, "theta": 10000.0}
    return recipes


DRAWINGS = {"rope": Drawing(_rope, _OWN_KINDS, _kinds_with, _without)}
