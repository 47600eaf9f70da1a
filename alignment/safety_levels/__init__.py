"""Kinds of safety side by side: none, filters of the output, a watching probe, trained models.

    from bitlens.alignment import levels
    report = levels({"none": model, "filter": ngram_filter(...), "constitutional": trained}, n=200)

docs/red_team.md says what each figure means.
"""

from .defences import (
    FilteredModel,
    MonitoredModel,
    ngram_filter,
    probe_filter,
    probe_monitor,
    standin_exchanges,
)
from .remembered import RememberedModel
from .side_by_side import levels, unpaired_detectable
from .table import Comparison, LevelsReport, Line, Times

__all__ = [
    "Comparison",
    "FilteredModel",
    "LevelsReport",
    "Line",
    "MonitoredModel",
    "RememberedModel",
    "Times",
    "levels",
    "ngram_filter",
    "probe_filter",
    "probe_monitor",
    "standin_exchanges",
    "unpaired_detectable",
]
