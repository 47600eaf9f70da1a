"""Certificates that check and replay a choice, equal for every shard count and path."""

from __future__ import annotations

from dataclasses import dataclass

from .typical import TypicalSet


@dataclass(frozen=True)
class Certificate:
    """Proves a row's choice; masses are integers in units of 2^-44 of the best token's weight.

    Attributes:
        x_max: The best logit after temperature.
        total: Mass of all tokens before min-p, top-k and top-p.
        kept: How many tokens the filters kept.
        mass: Their mass.
        threshold_logit, threshold_id: The last token that min-p, top-k and top-p keep, in the order
            (logit descending, id ascending), after temperature.
        rank: Kept tokens ahead of the chosen one: in that order, or with typical_p in its own.
        mass_before: Their mass.
        typical: What typical_p keeps of those; None without it.
    """

    x_max: float
    total: int
    kept: int
    mass: int
    threshold_logit: float
    threshold_id: int
    rank: int
    mass_before: int
    typical: TypicalSet | None = None
