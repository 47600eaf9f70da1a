"""The number of prompts that shows a shift, worked out before the run."""

from __future__ import annotations

import math
from collections.abc import Callable

from .binomial import binomial_at_most, upper_bound
from .student import noncentral_t_above, t_quantile

_MOST = 10**9


def prompts_to_see_an_event(rate: float, power: float = 0.95) -> int:
    """The n for which at least one of n independent prompts shows an event of this rate.

    The smallest n with 1 - (1 - rate)^n >= power. Raises ValueError for numbers outside (0, 1).
    """
    _require_probability(rate=rate, power=power)
    return math.ceil(math.log1p(-power) / math.log1p(-rate))


def power_of_mean(prompts: int, shift: float, deviation: float, alpha: float = 0.05) -> float:
    """P(the two-sided t-test at `alpha` rejects) for a true mean paired difference of `shift`.

    `deviation` is that of a prompt's own mean difference: with K tokens a prompt it is
    sqrt(between^2 + within^2 / K) (Miller, arXiv:2411.00640, section 5). Exact for normal prompt
    means (noncentral t). Raises ValueError for fewer than 3 prompts or a deviation <= 0.
    """
    _require_probability(alpha=alpha)
    if prompts < 3 or not deviation > 0 or not math.isfinite(shift):
        raise ValueError(f"{prompts} prompts, shift {shift}, deviation {deviation}: cannot test")
    degrees, noncentral = prompts - 1, shift / deviation * math.sqrt(prompts)
    critical = t_quantile(1 - alpha / 2, degrees)
    above = noncentral_t_above(critical, degrees, noncentral)
    return above + noncentral_t_above(critical, degrees, -noncentral)


def prompts_for_mean(
    shift: float, deviation: float, power: float = 0.8, alpha: float = 0.05
) -> int:
    """The fewest prompts with `power_of_mean` at least `power`. ValueError for a shift of 0."""
    _require_probability(power=power)
    if shift == 0:
        raise ValueError("shift = 0: no number of prompts shows a shift that is not there")
    return _smallest(3, lambda n: power_of_mean(n, shift, deviation, alpha) >= power)


def power_of_rate(prompts: int, rate: float, margin: float, alpha: float = 0.05) -> float:
    """P(the exact upper bound of a rate at 1 - alpha falls below `margin`), the true rate given.

    Raises ValueError unless 0 <= rate < margin < 1.
    """
    _require_probability(margin=margin, alpha=alpha)
    if not 0 <= rate < margin or prompts < 1:
        raise ValueError(f"{prompts} prompts, rate {rate}, margin {margin}: expected rate < margin")
    if upper_bound(0, prompts, 1 - alpha) >= margin:
        return 0.0
    low, high = 0, prompts  # the largest count of events that still passes lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        passes = upper_bound(middle, prompts, 1 - alpha) < margin
        low, high = (middle, high) if passes else (low, middle)
    return binomial_at_most(low, prompts, rate) if rate else 1.0


def prompts_for_rate(rate: float, margin: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Prompts with `power_of_rate` at least `power`, found by doubling and bisection.

    The power of an exact test rises in a saw-tooth: a slightly smaller number may do as well.
    """
    _require_probability(power=power)
    return _smallest(1, lambda n: power_of_rate(n, rate, margin, alpha) >= power)


def _smallest(first: int, enough: Callable[[int], bool]) -> int:
    low, high = first - 1, first
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            raise ValueError(f"more than {_MOST:,} prompts would be needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _require_probability(**named: float) -> None:
    for name, value in named.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value}: expected a number between 0 and 1")
