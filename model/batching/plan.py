"""Decides which tokens of which rows run in the next step."""

from __future__ import annotations

from collections.abc import Sequence

from .row import R

Share = tuple[R, int]
"""A row, and how many of its tokens the step runs on."""


def plan(running: Sequence[R], token_budget: int) -> list[Share[R]]:
    """Returns what a step runs, in the order of arrival: every row that writes gets its token, and
    prompts share what is left of the budget, the oldest first.

    A row's tokens depend neither on how its prompt is cut nor on who runs beside it, so that this
    decides when an answer comes, and never which.
    """
    every = [(row, row.n_due) for row in running]
    left = token_budget - sum(due == 1 for _, due in every)
    shares: list[Share[R]] = []
    for row, due in every:
        n = 1 if due == 1 else max(0, min(due, left))
        if due > 1:
            left -= n
        if n > 0:
            shares.append((row, n))
    return shares


def passes(shares: Sequence[Share[R]]) -> list[list[Share[R]]]:
    """Returns the shares by forward pass: together, but for rows that capture activations or look
    again at what is kept, which run alone and in the shape of their own tokens."""
    alone = [[share] for share in shares if share[0].runs_alone]
    if not alone:
        return [list(shares)] if shares else []
    together = [share for share in shares if not share[0].runs_alone]
    return [together, *alone] if together else alone
