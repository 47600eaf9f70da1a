"""The rules by which a recipe fills a tensor: exact values from counters.

Randomness is SplitMix64 (Steele, Lea and Flood 2014) of (seed, element index): the bits depend on
no library's random stream. Every value is exactly representable in the format it is made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..formats import Format, format_of

Array = np.ndarray[Any, np.dtype[np.float64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]


class Fill(Protocol):
    """The rule that determines every element of a tensor."""

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        """fp64 values of `shape`, each one exactly in `fmt` (None: any integers)."""
        ...


@dataclass(frozen=True)
class Constant:
    """Every element the same."""

    value: float

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        return np.full(shape, self.value, dtype=np.float64)


@dataclass(frozen=True)
class Listed:
    """The elements, one by one, in row-major order."""

    elements: tuple[float, ...]

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        return np.array(self.elements, dtype=np.float64).reshape(shape)


@dataclass(frozen=True)
class Steps:
    """start, start + step, ... in row-major order."""

    start: int
    step: int = 1

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        count = np.arange(math.prod(shape), dtype=np.float64)
        return (self.start + self.step * count).reshape(shape)


@dataclass(frozen=True)
class Random:
    """Exponents uniform in `exponents`, significands uniform over `bits` bits, hidden one included.

    bits=None uses all of the format's.
    """

    seed: int = 0
    bits: int | None = None
    exponents: tuple[int, int] = (0, 0)
    signed: bool = True

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        assert fmt is not None
        words = random_words(self.seed, math.prod(shape))
        bits = fmt.precision if self.bits is None else min(self.bits, fmt.precision)
        fraction = _below(words, bits - 1) << np.uint64(fmt.precision - bits)
        exponent = _exponents(random_words(~self.seed, len(words)), self.exponents)
        return _compose(fmt, fraction, exponent, words, self.signed).reshape(shape)


@dataclass(frozen=True)
class Integers:
    """Integers uniform in [-largest, largest]."""

    seed: int = 0
    largest: int = 1

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        words = random_words(self.seed, math.prod(shape)) % np.uint64(2 * self.largest + 1)
        return (words.astype(np.float64) - self.largest).reshape(shape)


@dataclass(frozen=True)
class Near:
    """centre + n * step with n uniform in [0, count): a large mean, a small spread."""

    seed: int = 0
    centre: float = 0.0
    step: float = 1.0
    count: int = 4

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        words = random_words(self.seed, math.prod(shape)) % np.uint64(self.count)
        return (self.centre + self.step * words.astype(np.float64)).reshape(shape)


@dataclass(frozen=True)
class Ties:
    """Midpoints of two neighbours in `target`, moved by up to +-`away` ULPs of the own format."""

    seed: int = 0
    target: str = "bf16"
    away: int = 0
    exponents: tuple[int, int] = (0, 0)

    def values(self, shape: tuple[int, ...], fmt: Format | None) -> Array:
        assert fmt is not None
        target = format_of(self.target)
        spare = fmt.precision - target.precision
        if spare < (2 if self.away else 1):
            raise ValueError(f"{fmt.name} has no bits left for the ties of {target.name}")
        words = random_words(self.seed, math.prod(shape))
        kept = _below(words, target.precision - 1) << np.uint64(spare)
        fraction = kept + np.uint64(1 << (spare - 1))
        if self.away:
            moves = random_words(self.seed + 1, len(words))
            distance = np.uint64(1) + moves % np.uint64(min(self.away, (1 << (spare - 1)) - 1))
            up = (moves >> np.uint64(63)).astype(bool)
            fraction = np.where(up, fraction + distance, fraction - distance)
        exponent = _exponents(random_words(~self.seed, len(words)), self.exponents)
        return _compose(fmt, fraction, exponent, words, True).reshape(shape)


def random_words(seed: int, n: int) -> Words:
    """n words of 64 bits, SplitMix64's for the counters seed * 2**32 + 1, + 2, ..."""
    start = np.uint64((seed << 32) & 0xFFFF_FFFF_FFFF_FFFF)
    z = start + np.arange(1, n + 1, dtype=np.uint64)
    z = z * np.uint64(0x9E37_79B9_7F4A_7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return z ^ (z >> np.uint64(31))


def _below(words: Words, bits: int) -> Words:
    """Words of `bits` bits."""
    return words & np.uint64((1 << bits) - 1)


def _exponents(words: Words, bounds: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    low, high = bounds
    if high < low:
        raise ValueError(f"exponents {bounds} are empty")
    return low + (words % np.uint64(high - low + 1)).astype(np.int64)


def _compose(
    fmt: Format,
    fraction: Words,
    exponent: np.ndarray[Any, np.dtype[np.int64]],
    words: Words,
    signed: bool,
) -> Array:
    """(1 + fraction / 2**(precision - 1)) * 2**exponent; subnormals drop their low bits."""
    hidden = np.uint64(1 << (fmt.precision - 1))
    lost = np.clip(fmt.min_exponent - exponent, 0, fmt.precision).astype(np.uint64)
    significand = (fraction | hidden) >> lost << lost
    magnitude = np.ldexp(significand.astype(np.float64), exponent - (fmt.precision - 1))
    values: Array = np.minimum(magnitude, fmt.largest)
    if signed:
        values = np.where((words >> np.uint64(63)).astype(bool), -values, values)
    return values
