"""A watched generation as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from .alarm import Alarm


@dataclass(frozen=True)
class ScoredToken:
    """A token and its score; None where it has none."""

    text: str
    score: float | None
    is_new: bool


@dataclass(frozen=True)
class WatchedText:
    """One sequence under one monitor."""

    monitor: str
    threshold: float
    finish_reason: str
    tokens: Sequence[ScoredToken]
    alarms: Sequence[Alarm]


def page(title: str, facts: dict[str, str], texts: Sequence[WatchedText]) -> str:
    """Returns the page: every sequence, coloured by score, and its alarms."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files(__package__).joinpath("watch.html.j2").read_text("utf-8")
    shown: list[dict[str, Any]] = [
        {"text": each, "marks": [mark(t.score, each.threshold) for t in each.tokens]}
        for each in texts
    ]
    rendered: str = environment.from_string(template).render(title=title, facts=facts, texts=shown)
    return rendered


def mark(score: float | None, threshold: float, steps: int = 8) -> int:
    """Returns how strongly a token is marked, from -steps to steps; above 0 passes the threshold.

    The distance to the threshold is squeezed by tanh: scores are log-odds, and beyond 3 they look
    alike.
    """
    if score is None or not math.isfinite(threshold):
        return 0
    distance = math.tanh((score - threshold) / 2)
    return math.ceil(distance * steps) if distance > 0 else math.floor(distance * steps)
