"""The incident as it was published: how much was misrouted, and whom it met.

https://www.anthropic.com/engineering/a-postmortem-of-three-recent-issues, "Context window routing
error": requests for a short context went to servers set up for one of a million tokens. Routing was
sticky: a conversation that had come to the wrong server stayed there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Incident:
    """Rates of misrouted requests.

    Attributes:
        rate: Of all requests, at first.
        worst_hour: Of the requests of the worst hour.
        users: Of one product's users, who had at least one message misrouted.
    """

    rate: float
    worst_hour: float
    users: float


PUBLISHED = Incident(rate=0.008, worst_hour=0.16, users=0.30)


def conversations_until(share: float, rate: float) -> float:
    """Returns the conversations after which a user has met a misroute with probability `share`.

    Each conversation is misrouted as a whole, with probability `rate`: 1 - (1 - rate)^n is the
    share. Raises ValueError outside (0, 1).
    """
    if not (0 < share < 1 and 0 < rate < 1):
        raise ValueError(f"share = {share}, rate = {rate}: expected numbers between 0 and 1")
    return math.log1p(-share) / math.log1p(-rate)


def users_touched(rate: float, conversations: int, *, users: int = 100_000, seed: int = 0) -> float:
    """Returns the share of simulated users with at least one of their conversations misrouted."""
    draws = np.random.default_rng(seed)
    return float((draws.binomial(conversations, rate, size=users) > 0).mean())
