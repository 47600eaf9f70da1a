"""Items that two runs must share before a difference of their scores can be seen.

McNemar's test with its normal approximation (Connor, Biometrics 43, 1987): what counts is how many
items change at all, not how many there are.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from .power import _require_probability


def items_for_paired_difference(
    effect: float, discordance: float, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Returns how many shared items show a difference of `effect` between two runs.

    Args:
        effect: The difference of the two accuracies, in (0, discordance].
        discordance: The share of items that one run gets right and the other wrong. With fixed bits
            it is what the fault alone changes; sampling noise adds its own.
        power: The probability of seeing it.
        alpha: The level of the two-sided test.

    Raises ValueError for numbers outside their ranges.
    """
    _require_effect(effect, discordance)
    _require_probability(power=power, alpha=alpha)
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) * math.sqrt(discordance)
    reach += normal.inv_cdf(power) * math.sqrt(discordance - effect**2)
    return max(1, round((reach / effect) ** 2))


def power_of_paired_difference(
    items: int, effect: float, discordance: float, alpha: float = 0.05
) -> float:
    """Returns the probability that `items` shared items show a difference of `effect`.

    Arguments and errors as `items_for_paired_difference`, and ValueError for no items.
    """
    _require_effect(effect, discordance)
    _require_probability(alpha=alpha)
    if items < 1:
        raise ValueError(f"items = {items}: expected at least 1")
    normal = NormalDist()
    limit = normal.inv_cdf(1 - alpha / 2) * math.sqrt(discordance)
    spread = math.sqrt(discordance - effect**2)
    if spread == 0:
        return 1.0 if effect * math.sqrt(items) > limit else 0.0
    return normal.cdf((effect * math.sqrt(items) - limit) / spread)


def items_for_unpaired_difference(
    effect: float, accuracy: float, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Returns how many items each of two runs needs where items are not compared one by one.

    The runs' accuracies are `accuracy` and `accuracy - effect`, their errors independent. Raises
    ValueError unless 0 < effect <= accuracy < 1 and power and alpha are probabilities.
    """
    _require_probability(accuracy=accuracy, power=power, alpha=alpha)
    if not 0 < effect <= accuracy:
        raise ValueError(f"effect = {effect}: expected a number in (0, {accuracy}], the accuracy")
    normal = NormalDist()
    other = accuracy - effect
    variance = accuracy * (1 - accuracy) + other * (1 - other)
    reach = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return max(1, round(reach**2 * variance / effect**2))


def _require_effect(effect: float, discordance: float) -> None:
    if not 0 < discordance <= 1:
        raise ValueError(f"discordance = {discordance}: expected a share in (0, 1]")
    if not 0 < effect <= discordance:
        raise ValueError(
            f"effect = {effect}: an effect is above 0 and at most the discordance, {discordance}, "
            "as every item that counts towards it is right in one run only"
        )
