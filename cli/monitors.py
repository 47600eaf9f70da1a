"""Monitors from the options of a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..interp.dictionaries import Dictionary
    from ..interp.monitors import Monitor
    from ..interp.monitors.watched import OnScore
    from ..model import HookedTransformer

PROBE_HELP = (
    "A probe's folder, or the name of one that comes with bitlens: harm, refusal. May be given "
    "repeatedly."
)
StopOrFlag = Annotated[
    bool, typer.Option("--stop/--flag", help="End a text at its first alarm, or go on.")
]


def monitors_of(
    model: HookedTransformer,
    folders: Sequence[Path],
    *,
    stop: bool,
    threshold: float | None = None,
    dictionary: Dictionary | None = None,
    scored: Callable[[str, float], OnScore] | None = None,
) -> list[Monitor]:
    """Returns a monitor for each probe's folder, called by the folder's name.

    `scored` makes what is told of a monitor's scores, from its name and threshold.
    """
    from ..interp.monitors import Monitor
    from ..interp.probes import Probe

    monitors = []
    for folder in folders:
        probe = Probe.load(folder, model)
        limit = probe.threshold_ if threshold is None else threshold
        reads_it = dictionary is not None and [dictionary.cfg.hook_name] == list(probe.hook_names)
        name = folder.resolve().name
        monitors.append(
            Monitor(
                probe,
                on_alarm="stop" if stop else "flag",
                threshold=limit,
                name=name,
                dictionary=dictionary if reads_it else None,
                on_score=None if scored is None else scored(name, limit),
            )
        )
    return monitors
