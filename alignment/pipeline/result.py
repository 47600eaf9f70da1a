"""The result of a run of Constitutional AI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..preferences import Gate, LabelSummary
from ..rewards import Merit
from .behaviour import Cell
from .rounds import Round


@dataclass(frozen=True)
class CaiRun:
    """A run that has ended.

    Attributes:
        stopped: Empty where all stages ran; "gate" where the labels were no better than chance;
            "merit" where a reward model knew no more than length and words.
        cells: Held-out behaviour before, after SL-CAI, and after RL-CAI where that ran.
        rounds: What revisions were like, round by round.
        gate: Of the labels.
        labels: What the gate's labels were worth.
        merits: Of the reward models, which every method but "dpo" has.
        manifest: All that determines the weights, and the digests of what came out.
        report: The HTML page.
    """

    stopped: str
    cells: list[Cell]
    rounds: list[Round]
    gate: Gate
    labels: LabelSummary
    merits: dict[str, Merit]
    manifest: dict[str, Any]
    report: Path

    def cell(self, stage: str, name: str) -> Cell:
        """Returns one cell, of stage "before", "sl" or "rl". Raises KeyError for none."""
        for cell in self.cells:
            if (cell.stage, cell.name) == (stage, name):
                return cell
        raise KeyError(f"{stage}, {name}: no such cell")
