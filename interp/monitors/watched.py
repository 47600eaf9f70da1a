"""The interface of a monitor that watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from ...model.transformer import HookedTransformer
from ..dictionaries import Dictionary
from ..probes import Probe
from .alarm import Alarm

OnAlarm = Literal["stop", "flag"] | Callable[[Alarm], object]
"""End the row; note the alarm and go on; or call a function, which ends the row by returning True
or "stop"."""


OnScore = Callable[[int, int, int, float], object]
"""Called with row, position in the sequence, token id and score."""


class Watched(Protocol):
    """A monitor's fields; `Monitor` says what they mean."""

    name: str
    probe: Probe
    on_alarm: OnAlarm
    on_score: OnScore | None
    threshold: float
    margin: float
    rows: frozenset[int] | None
    dictionary: Dictionary | None
    fp32_model: HookedTransformer | None
    hold: int

    @property
    def reads_features(self) -> bool: ...
