"""Binary floating-point formats and one exact rounding into each of them.

IEEE 754-2019 section 3.3 for fp16, fp32, fp64; bf16 and TF32 keep fp32's exponents with 8 and 11
significand bits; fp8 as in Micikevicius et al. 2022 (arXiv 2209.05433), table 1: e4m3 gives up
infinity for one more binade, e5m2 is IEEE-like. Past the largest number IEEE 754-2019 section 7.4
rounds to infinity. The OCP OFP8 specification (revision 1.0, conversions from wider formats) allows
a saturating mode and one that gives e5m2's infinity or e4m3's NaN; NVIDIA's instruction has only
the first (PTX ISA, `cvt.rn.satfinite.e4m3x2.f32` and `.e5m2x2`). fp4_e2m1 as in the OCP MX
specification (revision 1.0): 0, 0.5, 1, 1.5, 2, 3, 4 and 6. The codes of integers are formats, too,
all of whose numbers are subnormal: their spacing is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

Rounding = Literal["nearest_even", "toward_zero", "down", "up"]
Overflow = Literal["saturate", "inf", "nan"]
"""What a conversion makes of values past the largest number and of infinities: that number with
their sign, infinity with their sign, or NaN."""


@dataclass(frozen=True)
class Format:
    """Values +-m * 2**(e - precision + 1) with m < 2**precision and e from min to max_exponent.

    `precision` counts the hidden bit; `min_exponent` is that of the smallest normal number;
    `overflow` is what hardware makes of values past `largest`; `dtype` is torch's name for the
    format, None where torch has none.
    """

    name: str
    precision: int
    min_exponent: int
    max_exponent: int
    largest: float
    infinities: bool
    dtype: torch.dtype | None
    overflow: Overflow = "inf"

    @property
    def unit_roundoff(self) -> float:
        """The worst relative error of one rounding to nearest: 2**-precision."""
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.min_exponent

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (self.min_exponent - self.precision + 1)


def _ieee_like(
    name: str,
    precision: int,
    max_exponent: int,
    dtype: torch.dtype | None,
    overflow: Overflow = "inf",
) -> Format:
    largest = (2.0 - 2.0 ** (1 - precision)) * 2.0**max_exponent
    return Format(name, precision, 1 - max_exponent, max_exponent, largest, True, dtype, overflow)


BF16 = _ieee_like("bf16", 8, 127, torch.bfloat16)
FP16 = _ieee_like("fp16", 11, 15, torch.float16)
FP32 = _ieee_like("fp32", 24, 127, torch.float32)
FP64 = _ieee_like("fp64", 53, 1023, torch.float64)
TF32 = _ieee_like("tf32", 11, 127, None)
FP8_E4M3 = Format("fp8_e4m3", 4, -6, 8, 448.0, False, torch.float8_e4m3fn, "saturate")
FP8_E5M2 = _ieee_like("fp8_e5m2", 3, 15, torch.float8_e5m2, "saturate")

FP4_E2M1 = Format("fp4_e2m1", 2, 0, 2, 6.0, False, None, "saturate")
INT8 = Format("int8", 8, 7, 7, 127.0, False, None, "saturate")
INT16 = Format("int16", 16, 15, 15, 32767.0, False, None, "saturate")

FORMATS: dict[str, Format] = {
    f.name: f for f in (BF16, FP16, FP32, FP64, TF32, FP8_E4M3, FP8_E5M2, FP4_E2M1, INT8, INT16)
}
_BY_DTYPE = {f.dtype: f for f in FORMATS.values() if f.dtype is not None}


def format_of(x: str | torch.dtype | Format) -> Format:
    """The format called `x`, stored by the torch dtype `x`, or `x` itself; TypeError otherwise."""
    if isinstance(x, Format):
        return x
    found = FORMATS.get(x) if isinstance(x, str) else _BY_DTYPE.get(x)
    if found is None:
        raise TypeError(
            f"{x!r} is no known format: use one of {', '.join(FORMATS)} "
            f"or {', '.join(map(str, _BY_DTYPE))}"
        )
    return found


def round_to(
    x: torch.Tensor,
    fmt: str | torch.dtype | Format,
    mode: Rounding = "nearest_even",
    *,
    flush_subnormals: bool = False,
    overflow: Overflow | None = None,
) -> torch.Tensor:
    """`x` (fp64, any shape) rounded once into `fmt`; comes back in fp64, which holds it exactly.

    Subnormals of `fmt` are kept unless `flush_subnormals` turns results below its smallest normal
    into signed zeros. Without `overflow`, values past the largest number follow IEEE 754 section
    4.3 (to infinity, or to the largest finite number where `mode` rounds toward zero), and a format
    without infinities gives NaN instead of one. Signed zeros survive. (torch's own fp64 -> bf16 and
    fp16 go through fp32 and round twice.) Raises ValueError for "inf" in a format without.
    """
    fmt = format_of(fmt)
    if overflow == "inf" and not fmt.infinities:
        raise ValueError(f"round_to: {fmt.name} has no infinity to overflow to")
    if x.dtype != torch.float64:
        raise TypeError(f"round_to: x must be float64, got {x.dtype}")
    if mode not in get_args(Rounding):
        raise ValueError(f"round_to: mode {mode!r} is none of {', '.join(get_args(Rounding))}")
    x = x.detach()
    rounded = x if fmt is FP64 else _overflow(_round(x, fmt, mode), x, fmt, mode, overflow)
    if flush_subnormals:
        rounded = torch.where(rounded.abs() < fmt.smallest_normal, rounded * 0.0, rounded)
    return rounded


def _round(x: torch.Tensor, fmt: Format, mode: Rounding) -> torch.Tensor:
    """To a multiple of the format's spacing at x, its largest exponent left unbounded."""
    # The exponent field alone is 2**floor(log2 |x|). Clamping it keeps every step below exact:
    # from below it gives the subnormals' spacing, from above x is past `largest` anyway.
    power = (x.view(torch.int64) & 0x7FF0_0000_0000_0000).view(torch.float64)
    power = power.clamp(fmt.smallest_normal, 2.0 ** (fmt.max_exponent + 1))
    spacing = power * 2.0 ** (1 - fmt.precision)
    steps = x / spacing
    if mode == "nearest_even":
        steps = torch.round(steps)
    elif mode == "toward_zero":
        steps = torch.trunc(steps)
    elif mode == "down":
        steps = torch.floor(steps)
    else:
        steps = torch.ceil(steps)
    return steps * spacing


def overflows(x: torch.Tensor, fmt: str | torch.dtype | Format) -> torch.Tensor:
    """Returns where x (fp64) is infinite or rounds past the largest number of `fmt`."""
    fmt = format_of(fmt)
    return x.isinf() if fmt is FP64 else _round(x, fmt, "nearest_even").abs() > fmt.largest


def _overflow(
    rounded: torch.Tensor, x: torch.Tensor, fmt: Format, mode: Rounding, overflow: Overflow | None
) -> torch.Tensor:
    if overflow == "saturate":
        return rounded.clamp(-fmt.largest, fmt.largest)
    infinity = torch.inf if fmt.infinities and overflow != "nan" else torch.nan
    over = torch.full_like(rounded, infinity)
    if mode != "nearest_even":
        saturates = x.isfinite()
        if mode == "down":
            saturates &= x > 0
        elif mode == "up":
            saturates &= x < 0
        over = over.masked_fill(saturates, fmt.largest)
    over = over.copysign(rounded)
    return torch.where(rounded.abs() > fmt.largest, over, rounded)
