"""Units in the last place (Muller et al., Handbook of Floating-Point Arithmetic, section 2.6)."""

from __future__ import annotations

import torch

from .formats import Format, format_of, round_to

_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_FARTHEST = torch.iinfo(torch.int64).max


def ulp(x: torch.Tensor, dtype: torch.dtype | str | Format | None = None) -> torch.Tensor:
    """The distance between the two neighbours in `dtype` (default: x's) that enclose |x|, as fp64.

    At a power of two it is the wider distance, above it; for subnormals the smallest subnormal;
    inf and NaN give NaN. Shape as x. Raises TypeError for a dtype that is no binary float.
    """
    fmt = format_of(x.dtype if dtype is None else dtype)
    magnitude = x.detach().to(torch.float64).abs()
    # frexp gives a fraction in [1/2, 1), the ULP definition counts from [1, 2).
    exponent = torch.frexp(magnitude).exponent - 1
    exponent = exponent.masked_fill(magnitude == 0, fmt.min_exponent)
    exponent = exponent.clamp(min=fmt.min_exponent) - (fmt.precision - 1)
    spacing = _power_of_two(exponent)
    return spacing.masked_fill(~torch.isfinite(magnitude), torch.nan)


def ulp_error(
    computed: torch.Tensor, exact: torch.Tensor, format: torch.dtype | str | Format | None = None
) -> torch.Tensor:
    """|computed - exact| in ULPs of `format` (default: computed's dtype) at `exact`, as fp64.

    `exact` is fp64 of the same shape: the true value, or close enough to it for the claim at hand;
    it is never rounded first. A correct rounding has at most 0.5. `format` names one that torch
    lacks (TF32), or the one whose values `computed` holds in a wider dtype.
    Equal infinities and NaN against NaN count 0, any other meeting of a non-finite value inf.
    Where `exact` overflows the format, infinity (NaN if it has none) counts as the right rounding.
    """
    fmt = format_of(computed.dtype if format is None else format)
    if exact.dtype != torch.float64:
        raise TypeError(f"ulp_error: `exact` must be float64, got {exact.dtype}")
    if computed.shape != exact.shape:
        raise ValueError(
            f"ulp_error: shapes {tuple(computed.shape)} and {tuple(exact.shape)} differ"
        )
    value = computed.detach().to(torch.float64)
    error = (value - exact).abs() / ulp(exact, fmt)
    rounded = round_to(exact, fmt)
    same = (value == rounded) | (value.isnan() & rounded.isnan())
    both_finite = value.isfinite() & exact.isfinite()
    return torch.where(both_finite, error, torch.where(same, 0.0, torch.inf).to(torch.float64))


def ulp_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns the steps from neighbour to neighbour between `a` and `b`: int64, shaped like them.

    For two outputs, where neither is the truth. Both share one dtype (bf16, fp16, fp32, fp64, fp8).
    +0 and -0 are 0 apart, infinity is the largest number's neighbour, NaNs are 0 from each other
    and the largest int64 from all else (as is what lies farther in fp64).
    """
    if a.dtype != b.dtype:
        raise TypeError(f"ulp_distance: dtypes {a.dtype} and {b.dtype} differ")
    if a.shape != b.shape:
        raise ValueError(f"ulp_distance: shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    format_of(a.dtype)
    place_a, place_b = _place(a), _place(b)
    distance = (place_a - place_b).abs()
    wrapped = ((place_a < 0) != (place_b < 0)) & (place_a.abs() > _FARTHEST - place_b.abs())
    nan_a, nan_b = a.isnan(), b.isnan()
    distance = distance.masked_fill(wrapped | (nan_a ^ nan_b), _FARTHEST)
    return distance.masked_fill(nan_a & nan_b, 0)


def _place(x: torch.Tensor) -> torch.Tensor:
    """A value's place on the number line, counted in neighbours from zero."""
    bits = x.detach().contiguous().view(_INTEGER[x.element_size()]).to(torch.int64)
    magnitude = bits & ((1 << (8 * x.element_size() - 1)) - 1)
    return torch.where(bits < 0, -magnitude, magnitude)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """2**exponent in fp64, exact down to 2**-1074 (torch.ldexp underflows on the way there)."""
    half = exponent // 2
    bits = (half + 1023).to(torch.int64) << 52
    other = (exponent - half + 1023).to(torch.int64) << 52
    return bits.view(torch.float64) * other.view(torch.float64)
