"""The interface of monitors: they see activations, keep scores, and end rows.

Tensor names: b rows of a pass, P its columns, d width of a hook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from ..hooks.generation_step import GenerationStep


@dataclass(frozen=True)
class WatchedPass:
    """One pass as monitors see it.

    Attributes:
        step: Where the generation stands.
        rows: The sequence that each row of the pass belongs to.
        real: bool [b, P], the tokens that are a sequence's own; padding is not.
        column: Column of the pass's first token in the output.
        found: Activations [b, P, ..., d] by hook name, as edits left them, on the CPU.
    """

    step: GenerationStep
    rows: list[int]
    real: torch.Tensor
    column: int
    found: Mapping[str, torch.Tensor]


class GenerationAlarm(Protocol):
    """One alarm, as far as a generation reads it."""

    @property
    def monitor(self) -> str: ...

    @property
    def row(self) -> int: ...

    @property
    def position(self) -> int:
        """The place of the token in its sequence, the prompt's first token at 0."""

    @property
    def score(self) -> float: ...

    @property
    def threshold(self) -> float: ...

    @property
    def decided_by(self) -> str: ...

    @property
    def error(self) -> str | None:
        """The text of what the monitor's own function raised; None if it did not."""


class GenerationWatch(Protocol):
    """The monitors of one call."""

    @property
    def hook_names(self) -> Sequence[str]:
        """Hooks to show it in every pass."""

    @property
    def hold(self) -> int:
        """Tokens whose text waits: 1 releases a token once it was scored, 0 at once."""

    @property
    def alarms(self) -> Sequence[GenerationAlarm]:
        """The alarms so far, in the order they were raised."""

    def see(self, seen: WatchedPass) -> Mapping[int, str]:
        """Scores the tokens of a pass; returns why rows must end, "alarm" or "error", by row."""

    def scores(self, n_columns: int) -> dict[str, torch.Tensor]:
        """Returns scores by monitor, fp32 [B, n_columns]; NaN where there is none."""


class GenerationMonitor(Protocol):
    """The interface of a monitor in `generate(monitors=[...])`."""

    @classmethod
    def watch(
        cls, monitors: Sequence[Self], model: Any, prompts: Sequence[Sequence[int]]
    ) -> GenerationWatch:
        """Begins to watch the sequences of one call, with all its monitors together."""


def begin_watch(
    monitors: Sequence[GenerationMonitor], model: Any, prompts: Sequence[Sequence[int]]
) -> GenerationWatch | None:
    """Returns the monitors at work on these sequences, None where there are none.

    Raises TypeError for monitors of several kinds, which cannot watch together.
    """
    if not monitors:
        return None
    kind = type(monitors[0])
    if other := next((m for m in monitors if type(m) is not kind), None):
        raise TypeError(
            f"monitors: {type(other).__name__} and {kind.__name__} cannot watch one generation"
        )
    return kind.watch(monitors, model, prompts)
