"""The shares that a postmortem counts."""

from __future__ import annotations

from collections.abc import Callable

from .experiment import DRAWS, Rate

PANELS: dict[str, Callable[[Rate], float]] = {
    "best token lost": lambda rate: rate.best_lost / rate.prompts,
    "best token not first": lambda rate: rate.best_not_first / rate.prompts,
    "sampled token changed": lambda rate: rate.tokens_changed / (rate.prompts * DRAWS),
}
"""What is counted, and its share."""
