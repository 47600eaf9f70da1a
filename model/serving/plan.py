"""Decides which tokens of which rows run in the next step."""

from __future__ import annotations

from collections.abc import Sequence

from .row import Row

Share = tuple[Row, int]
"""A row, and how many of its tokens the step runs on."""


def plan(running: Sequence[Row], token_budget: int) -> list[Share]:
    """Returns what a step runs, in the order of arrival: every row that writes gets its token, and
    prompts share what is left of the budget, the oldest first.

    A row's tokens depend neither on how its prompt is cut nor on who runs beside it, so that this
    decides when an answer comes, and never which.
    """
    left = token_budget - sum(row.n_due == 1 for row in running)
    shares: list[Share] = []
    for row in running:
        due = row.n_due
        n = 1 if due == 1 else max(0, min(due, left))
        if due > 1:
            left -= n
        if n > 0:
            shares.append((row, n))
    return shares


def passes(shares: Sequence[Share]) -> list[list[Share]]:
    """Returns the shares by forward pass: together, but for rows that capture activations or look
    again at what is kept, which run alone and in the shape of their own tokens."""
    together = [share for share in shares if not share[0].runs_alone]
    alone = [[share] for share in shares if share[0].runs_alone]
    return [together, *alone] if together else alone
