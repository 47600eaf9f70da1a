"""Draws tensors in blocks with their scales, codes and minima."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ...strategies.drawing import ROWS, Drawing, Formats, inner_length, operand_beside, span_within
from ...strategies.fills import Constant, Near
from ...strategies.operands import KINDS, LISTED
from ...strategies.recipe import Recipe
from ...strategies.tensors import MAX_SEED, listed_tensors, random_tensors


def _blocks(draw: st.DrawFn, kind: str, max_size: int) -> tuple[int, int, int]:
    """Rows, blocks and the length of one: of one block a row, or of several."""
    length = inner_length(draw, kind, min(max_size, 65))
    return draw(ROWS), draw(st.sampled_from([1, 2])), length


def _operand(draw: st.DrawFn, formats: Formats, kind: str, shape: tuple[int, ...]) -> Recipe:
    fmt = formats.storage
    return draw(KINDS[kind](shape, fmt, span_within((-4, 4), fmt, (fmt.max_exponent - 2) // 2)))


def _scale(draw: st.DrawFn, formats: Formats, kind: str, shape: tuple[int, ...]) -> Recipe:
    """Positive, at the format's ends beside operands that are drawn one by one."""
    fmt = formats.storage
    if kind in LISTED:
        ends = st.sampled_from([1.0, fmt.largest, fmt.smallest_subnormal])
        return draw(listed_tensors(shape, fmt, elements=ends))
    low = max(-4, fmt.min_exponent)
    return draw(random_tensors(shape, fmt, exponents=(low, 1), signed=False))


def _quantize(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """The codes of int8, of blocks of 4 bits, of unsigned bytes, or of the output's own range."""
    rows, blocks, length = _blocks(draw, kind, max_size)
    if kind == "code_ties":
        inputs = _code_ties(draw, formats, (rows, blocks, length))
    else:
        inputs = {
            "x": _operand(draw, formats, kind, (rows, blocks * length)),
            "scale": _scale(draw, formats, kind, (rows, blocks)),
        }
    if kind == "extremes":  # codes past the format's own range
        return inputs
    ranges = [{}, {"low": -127, "high": 127}, {"low": -8, "high": 7}]
    return inputs | draw(st.sampled_from([*ranges, {"low": 0, "high": 255, "zero_point": 128}]))


def _code_ties(draw: st.DrawFn, formats: Formats, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Multiples of a quarter of a scale that is a power of two: the ties of int8 and of fp4."""
    fmt, (rows, blocks, length) = formats.storage, sizes
    scale = 2.0 ** draw(st.integers(-2, 1))
    seed, count = draw(st.integers(0, MAX_SEED)), 32 if fmt.precision >= 8 else 8
    fill = Near(seed, scale / 4, scale / 4, count)
    return {
        "x": Recipe((rows, blocks * length), fmt.name, fill),
        "scale": Recipe((rows, blocks), fmt.name, Constant(scale)),
    }


def _dequantize(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    rows, blocks, length = _blocks(draw, kind, max_size)
    beside = "extremes" if kind in LISTED else kind
    return {
        "codes": _operand(draw, formats, kind, (rows, blocks * length)),
        "scale": draw(operand_beside(beside, (rows, blocks), formats.storage, (-4, 1))),
        "minimum": draw(operand_beside(beside, (rows, blocks), formats.storage, (-4, 1))),
    }


def _block_scale(draw: st.DrawFn, formats: Formats, kind: str, max_size: int) -> dict[str, Any]:
    """int8's, fp8's and fp4's largest codes, and others; as they are, or as powers of two."""
    rows, blocks, length = _blocks(draw, kind, max_size)
    if kind not in LISTED and draw(st.booleans()):  # few quotients show by what they were rounded
        blocks, length = 64, draw(st.sampled_from([1, 2]))
    inputs = {
        "x": _operand(draw, formats, kind, (rows, blocks * length)),
        "block": length,
        "limit": draw(st.sampled_from([127.0, 448.0, 6.0, 7.3, 0.5])),
    }
    power = draw(st.sampled_from([None, "floor", "up"]))
    return inputs if power is None else {**inputs, "power": power}


DRAWINGS = {
    "quantize": Drawing(_quantize, ("code_ties",)),
    "dequantize": Drawing(_dequantize, sometimes=("minimum",)),
    "block_scale": Drawing(_block_scale),
}
