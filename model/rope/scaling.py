"""RoPE scaling: how rotary frequencies are changed to reach beyond the trained context.

Each type turns the frequencies theta^(-2j / d_head) into others, and some multiply cos and sin by
an attention factor. All of it is fp64 by the operation lists of docs/numerics.md, with log_f64 and
exp_f64 of the spec and IEEE operations otherwise: the same bits on every machine.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from ..._core import exp_f64, log_f64
from ..config_error import ConfigError

RopeType = Literal["linear", "ntk", "dynamic", "yarn", "longrope", "llama3"]

_TWO_PI = 6.283185307179586
_LARGEST_BASE = 1e300


@dataclass(frozen=True)
class Frequencies:
    """The frequencies and the factor that a rotary table is made from.

    Attributes:
        inv_freq: Radians a position, d_head / 2 of them.
        attention_factor: Multiplies cos and sin.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0


class RopeScaling(Protocol):
    """One type with its parameters, by the names of Hugging Face's config."""

    @property
    def rope_type(self) -> RopeType: ...

    @property
    def follows_length(self) -> bool:
        """Whether frequencies depend on how long the sequence is when they are computed."""
        ...

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        """For a pass whose last position is n_positions - 1. Raises ConfigError."""
        ...

    def __hash__(self) -> int: ...


def rotary_frequencies(
    theta: float, d_head: int, scaling: RopeScaling | None, n_positions: int = 0
) -> Frequencies:
    """Returns a layer's frequencies; `n_positions` matters only if the scaling follows the length.

    Raises ConfigError where parameters do not fit theta or d_head.
    """
    follows = scaling is not None and scaling.follows_length
    return _frequencies(theta, d_head, scaling, n_positions if follows else 0)


@functools.lru_cache(maxsize=256)
def _frequencies(
    theta: float, d_head: int, scaling: RopeScaling | None, n_positions: int
) -> Frequencies:
    if scaling is None:
        return Frequencies(tuple(_unscaled(theta, d_head)))
    return scaling.frequencies(theta, d_head, n_positions)


def _unscaled(theta: float, d_head: int) -> list[float]:
    log_theta = log_f64(theta)
    return [exp_f64(-((2.0 * j) / d_head * log_theta)) for j in range(d_head // 2)]


def _with_longer_base(theta: float, stretch: float, d_head: int) -> list[float]:
    """Those of the base theta * stretch^(d_head / (d_head - 2)) (bloc97 2023, "NTK-aware")."""
    if d_head <= 2:
        raise ConfigError(f"d_head = {d_head}: NTK scaling needs at least two frequencies")
    base = theta * exp_f64(d_head / (d_head - 2.0) * log_f64(stretch))
    if base > _LARGEST_BASE:
        raise ConfigError(f"rope_theta = {theta}, stretched {stretch} times, is out of range")
    return _unscaled(base, d_head)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Positions divided by `factor` (Chen et al. 2023, position interpolation)."""

    factor: float
    rope_type: RopeType = field(default="linear", init=False)
    follows_length: ClassVar[bool] = False

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        return Frequencies(tuple(f / self.factor for f in _unscaled(theta, d_head)))


@dataclass(frozen=True, kw_only=True)
class NTK:
    """The base raised so that the lowest frequency is divided by `factor`, the highest by 1."""

    factor: float
    rope_type: RopeType = field(default="ntk", init=False)
    follows_length: ClassVar[bool] = False

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        return Frequencies(tuple(_with_longer_base(theta, self.factor, d_head)))


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """NTK by as much as the sequence has outgrown the trained context (emozilla 2023)."""

    factor: float
    original_max_position_embeddings: int
    rope_type: RopeType = field(default="dynamic", init=False)
    follows_length: ClassVar[bool] = True

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        trained = self.original_max_position_embeddings
        length = max(n_positions, trained)
        stretch = self.factor * length / trained - (self.factor - 1.0)
        return Frequencies(tuple(_with_longer_base(theta, stretch, d_head)))


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """NTK-by-parts with an attention factor (Peng et al. 2023, sections 3.2 and 3.4).

    Frequencies that turn more than `beta_fast` times within the trained context stay, those that
    turn less than `beta_slow` times are divided by `factor`, and a ramp joins them.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    rope_type: RopeType = field(default="yarn", init=False)
    follows_length: ClassVar[bool] = False

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        low, high = self.ramp(theta, d_head)
        scaled = []
        for j, f in enumerate(_unscaled(theta, d_head)):
            kept = 1.0 - min(max((j - low) / (high - low), 0.0), 1.0)
            scaled.append(f / self.factor * (1.0 - kept) + f * kept)
        return Frequencies(tuple(scaled), self.magnitude())

    def ramp(self, theta: float, d_head: int) -> tuple[float, float]:
        """Returns the indices where the ramp from kept to divided frequencies begins and ends."""
        if theta <= 1.0:
            raise ConfigError(f"rope_theta = {theta}: yarn needs a base above 1")
        low = self._index_of(self.beta_fast, theta, d_head)
        high = self._index_of(self.beta_slow, theta, d_head)
        if self.truncate:
            low, high = float(math.floor(low)), float(math.ceil(high))
        low, high = max(low, 0.0), min(high, d_head - 1.0)
        return low, high + 0.001 if low == high else high

    def _index_of(self, turns: float, theta: float, d_head: int) -> float:
        """The index whose frequency makes so many turns within the trained context."""
        ratio = self.original_max_position_embeddings / (turns * _TWO_PI)
        return d_head * log_f64(ratio) / (2.0 * log_f64(theta))

    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._mscale(self.mscale) / self._mscale(self.mscale_all_dim)
        return self._mscale(1.0)

    def _mscale(self, weight: float) -> float:
        return 1.0 if self.factor <= 1.0 else 0.1 * weight * log_f64(self.factor) + 1.0


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """A divisor for each frequency, one list up to the trained context and one beyond it (Ding et
    al. 2024). With the same list for both it is any fixed set of divisors, such as a GGUF file's
    rope_freqs.weight.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    attention_factor: float
    rope_type: RopeType = field(default="longrope", init=False)

    @property
    def follows_length(self) -> bool:
        return self.short_factor != self.long_factor

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        is_long = n_positions > self.original_max_position_embeddings
        factors = self.long_factor if is_long else self.short_factor
        if len(self.short_factor) != d_head // 2 or len(self.long_factor) != d_head // 2:
            raise ConfigError(
                f"longrope has {len(self.short_factor)} short and {len(self.long_factor)} long "
                f"factors: d_head = {d_head} needs {d_head // 2} of each"
            )
        scaled = (f / factor for f, factor in zip(_unscaled(theta, d_head), factors, strict=True))
        return Frequencies(tuple(scaled), self.attention_factor)

    @staticmethod
    def default_attention_factor(factor: float, trained: int) -> float:
        """sqrt(1 + ln(factor) / ln(trained context)), 1 where nothing is stretched."""
        if factor <= 1.0:
            return 1.0
        return math.sqrt(1.0 + log_f64(factor) / log_f64(float(trained)))


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Llama 3.1's: wavelengths beyond trained / low_freq_factor are multiplied by `factor`, those
    below trained / high_freq_factor stay, a ramp in between (Dubey et al. 2024)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: RopeType = field(default="llama3", init=False)
    follows_length: ClassVar[bool] = False

    def frequencies(self, theta: float, d_head: int, n_positions: int) -> Frequencies:
        return Frequencies(tuple(self._scaled(f) for f in _unscaled(theta, d_head)))

    def _scaled(self, f: float) -> float:
        turns = self.original_max_position_embeddings * f / _TWO_PI
        if turns > self.high_freq_factor:
            return f
        if turns < self.low_freq_factor:
            return f / self.factor
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return f / self.factor * (1.0 - kept) + f * kept


def require_fixed(scaling: RopeScaling | None) -> None:
    """Raises ConfigError for a scaling whose frequencies follow the length of the sequence."""
    if scaling is None or not scaling.follows_length:
        return
    instead = (
        'rope_scaling={"rope_type": "ntk", "factor": s} for a fixed base'
        if scaling.rope_type == "dynamic"
        else "rope_scaling with the same short_factor and long_factor"
    )
    raise ConfigError(
        f"RoPE scaling of type {scaling.rope_type!r} changes its frequencies as a sequence grows, "
        "while the keys in the cache keep those they were rotated by: a token's bits would depend "
        f'on how its prompt was cut. Load with backend="torch", which promises no bits, or give '
        f"{instead}"
    )
