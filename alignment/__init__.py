"""Constitutional AI on a model that one can open: what a constitution changes, and what not."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .constitution import Constitution
    from .pipeline import CaiConfig, CaiRun
    from .pipeline.run import run
    from .preferences import Gate, Labels, UngatedLabels, gate, label
    from .red_team import redteam
    from .revision import replay, revise
    from .safety_levels import levels

__all__ = [
    "CaiConfig",
    "CaiRun",
    "Constitution",
    "Gate",
    "Labels",
    "UngatedLabels",
    "gate",
    "label",
    "levels",
    "redteam",
    "replay",
    "revise",
    "run",
]

_HOMES = {
    "CaiConfig": "pipeline",
    "CaiRun": "pipeline",
    "Constitution": "constitution",
    "Gate": "preferences",
    "Labels": "preferences",
    "UngatedLabels": "preferences",
    "gate": "preferences",
    "label": "preferences",
    "levels": "safety_levels",
    "redteam": "red_team",
    "replay": "revision",
    "revise": "revision",
    "run": "pipeline",
}
"""The modules that names are resolved from when they are first asked for (PEP 562): the stand-in
and the command line need no torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return found
