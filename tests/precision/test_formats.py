"""precision/formats.py: every bit pattern of the small formats, and Fractions for the rest."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from bitlens.precision.formats import (
    BF16,
    FORMATS,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    FP64,
    TF32,
    Format,
    Rounding,
    format_of,
    round_to,
)
from hypothesis import example, given
from hypothesis import strategies as st

SMALL = [BF16, FP16, FP8_E4M3, FP8_E5M2]
MODES: list[Rounding] = ["nearest_even", "toward_zero", "down", "up"]
DOUBLES = st.floats() | st.floats(width=32) | st.floats(width=16)


def _every(fmt: Format) -> torch.Tensor:
    """All values of a format of at most 16 bits, as torch decodes them."""
    assert fmt.dtype is not None
    if fmt.dtype.itemsize == 1:
        bits = torch.arange(256, dtype=torch.uint8)
    else:
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    return bits.view(fmt.dtype).to(torch.float64)


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(x.isnan(), 0.5).view(torch.int64)


def _nearest(value: float, fmt: Format) -> Fraction | float:
    """Rounding to nearest even as IEEE 754 writes it, in exact rationals."""
    if not math.isfinite(value):
        return value if fmt.infinities else math.nan
    exact = Fraction(value)
    exponent = max(math.frexp(value)[1] - 1, fmt.min_exponent) if value else fmt.min_exponent
    spacing = Fraction(2) ** (exponent - fmt.precision + 1)
    rounded = round(exact / spacing) * spacing  # Python's round is half to even
    if abs(rounded) > Fraction(fmt.largest):
        return math.copysign(math.inf, value) if fmt.infinities else math.nan
    return rounded


@pytest.mark.parametrize("fmt", SMALL, ids=lambda f: f.name)
def test_every_value_is_a_fixed_point_and_the_extremes_are_torchs(fmt: Format) -> None:
    values = _every(fmt)
    for mode in MODES:
        rounded = round_to(values, fmt, mode)
        assert torch.equal(_bits(rounded), _bits(values))
    finite = values[values.isfinite()]
    assert finite.max() == fmt.largest
    assert finite[finite > 0].min() == fmt.smallest_subnormal
    info = torch.finfo(fmt.dtype)
    assert (info.max, info.smallest_normal) == (fmt.largest, fmt.smallest_normal)
    assert info.eps == 2 * fmt.unit_roundoff
    assert bool(values.isinf().any()) == fmt.infinities


@pytest.mark.parametrize("fmt", SMALL, ids=lambda f: f.name)
def test_between_neighbours_ties_go_to_even_and_the_rest_to_the_nearer(fmt: Format) -> None:
    values = sorted({v for v in _every(fmt).tolist() if math.isfinite(v)})
    low, high = (torch.tensor(v, dtype=torch.float64) for v in zip(*pairwise(values), strict=True))
    middle = (low + high) / 2
    below, above = torch.nextafter(middle, low), torch.nextafter(middle, high)
    assert torch.equal(round_to(below, fmt), low)
    assert torch.equal(round_to(above, fmt), high)
    tie = round_to(middle, fmt)
    assert bool(((tie == low) | (tie == high)).all())
    even = torch.frexp(tie).mantissa * 2.0**fmt.precision
    subnormal = tie.abs() < fmt.smallest_normal
    even = torch.where(subnormal, tie / fmt.smallest_subnormal, even)
    assert bool((even % 2 == 0).all())
    for x in (below, middle, above):
        assert torch.equal(round_to(x, fmt, "down"), low)
        assert torch.equal(round_to(x, fmt, "up"), high)
        assert torch.equal(round_to(x, fmt, "toward_zero"), torch.where(x > 0, low, high))


@pytest.mark.parametrize("fmt", [BF16, FP16, FP8_E5M2, FP8_E4M3], ids=lambda f: f.name)
def test_fp32_values_round_as_torch_rounds_them(fmt: Format) -> None:
    # A stride that is prime to 2^32 visits every exponent and all low bits.
    bits = torch.arange(0, 2**32, 9973, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    if not fmt.infinities:  # past the largest number torch saturates or not, version by version
        x = x[x.abs() <= fmt.largest]
    assert torch.equal(_bits(round_to(x.double(), fmt)), _bits(x.to(fmt.dtype).double()))


@given(DOUBLES)
@example(1 + 2.0**-8)
@example(1 + 2.0**-8 + 2.0**-40)  # torch's fp64 -> bf16 goes through fp32 and rounds this down
@example(-(2.0**-150))
@example(1e308)
@example(5e-324)
@example(464.0)
def test_every_format_rounds_as_exact_rationals_do(value: float) -> None:
    for fmt in FORMATS.values():
        found = float(round_to(torch.tensor(value, dtype=torch.float64), fmt))
        expected = _nearest(value, fmt)
        assert found == expected or (math.isnan(found) and math.isnan(float(expected))), fmt.name
        assert math.isnan(found) or math.copysign(1, found) == math.copysign(1, value)


@given(DOUBLES.filter(math.isfinite))
@example(5e-324)
def test_directed_roundings_enclose_the_value(value: float) -> None:
    x = torch.tensor(value, dtype=torch.float64)
    for fmt in (BF16, FP16, FP32, TF32, FP8_E5M2):
        low, high = (float(round_to(x, fmt, mode)) for mode in ("down", "up"))
        nearest, cut = float(round_to(x, fmt)), float(round_to(x, fmt, "toward_zero"))
        assert low <= value <= high
        assert nearest in (low, high)
        assert cut == (low if value > 0 else high)
        assert (low == high) == (low == value)


def test_torch_double_rounds_fp64_to_bf16_and_this_does_not() -> None:
    x = torch.tensor([1 + 2.0**-8 + 2.0**-40], dtype=torch.float64)
    assert round_to(x, BF16).item() == 1 + 2.0**-7
    assert round_to(x.float().double(), BF16).item() == 1.0


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
def test_flushing_takes_subnormals_to_zeros_of_their_sign(fmt: Format) -> None:
    tiny = torch.tensor([1.0, -1.0], dtype=torch.float64) * fmt.smallest_subnormal
    kept = round_to(tiny, fmt)
    flushed = round_to(tiny, fmt, flush_subnormals=True)
    assert torch.equal(kept, tiny)
    assert flushed.tolist() == [0.0, 0.0]
    assert flushed.signbit().tolist() == [False, True]
    if fmt.smallest_normal <= fmt.largest:  # all integers are subnormal
        edge = torch.tensor(fmt.smallest_normal, dtype=torch.float64)
        assert round_to(edge, fmt, flush_subnormals=True) == edge


def test_codes_of_four_and_eight_bits_are_rounded_to_even_and_saturate() -> None:
    x = torch.tensor([0.25, 0.75, 2.5, 3.5, 5.0, 5.1, 7.0, -9.0], dtype=torch.float64)
    assert round_to(x, "fp4_e2m1", overflow="saturate").tolist() == [
        *(0.0, 1.0, 2.0, 4.0, 4.0, 6.0, 6.0, -6.0)
    ]
    x = torch.tensor([0.5, 1.5, -2.5, 126.6, 127.4, 300.0, -300.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 2.0, -2.0, 127.0, 127.0, 127.0, -127.0], dtype=torch.float64)
    assert torch.equal(round_to(x, "int8", overflow="saturate"), expected)
    assert torch.equal(round_to(x, "int8", "toward_zero", overflow="saturate")[:3], x[:3].trunc())


def test_overflow_goes_where_the_mode_says() -> None:
    x = torch.tensor([1e6, -1e6, torch.inf, -torch.inf], dtype=torch.float64)
    big, inf = FP16.largest, math.inf
    assert round_to(x, FP16).tolist() == [inf, -inf, inf, -inf]
    assert round_to(x, FP16, "toward_zero").tolist() == [big, -big, inf, -inf]
    assert round_to(x, FP16, "down").tolist() == [big, -inf, inf, -inf]
    assert round_to(x, FP16, "up").tolist() == [inf, -big, inf, -inf]
    assert round_to(x, FP8_E4M3).isnan().all()


def test_formats_have_many_names() -> None:
    assert format_of("bf16") is format_of(torch.bfloat16) is format_of(BF16) is BF16
    assert format_of("tf32") is TF32
    assert TF32.dtype is None
    assert format_of(torch.float64) is FP64
    for unknown in ("bfloat16", torch.int8):
        with pytest.raises(TypeError, match="fp8_e4m3"):
            format_of(unknown)
    with pytest.raises(TypeError, match="float64"):
        round_to(torch.ones(1), BF16)
    with pytest.raises(ValueError, match="toward_zero"):
        round_to(torch.ones(1, dtype=torch.float64), BF16, "truncate")  # type: ignore[arg-type]
