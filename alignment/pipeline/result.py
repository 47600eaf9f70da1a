"""The result of a run of Constitutional AI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..preferences import Gate, LabelSummary
from ..rewards import Merit, OverOptimisation
from ..row_file import Row
from .behaviour import Cell
from .divergence import Divergence
from .iterations import Iteration
from .optimisation_path import Batch
from .rounds import Round


@dataclass(frozen=True)
class CaiRun:
    """A run that has ended.

    Attributes:
        stopped: Empty where all stages ran; "gate" where the labels were no better than chance;
            "merit" where a reward model knew no more than length and words.
        cells: Held-out behaviour before, after SL-CAI, and after RL-CAI where that ran.
        rounds, ablation: What revisions were like, round by round; and without critiques, where
            the run has both.
        n_helpful: Helpful answers that SL-CAI was trained on beside the revisions.
        gate: Of the labels.
        labels: What the gate's labels were worth.
        merits: Of the reward models, which every method but "dpo" has.
        over: What choosing the best of n by the reward does to the stand-in's gold score.
        path: The batches of answers on the way of RL, with reward, gold score and distance; empty
            for "dpo", which samples none.
        iterations: The rounds of preferences that were begun.
        distances: How far each stage took the policy.
        insides: What each stage moved inside the model, a row a stage.
        manifest: All that determines the weights, and the digests of what came out.
        report: The HTML page.
    """

    stopped: str
    cells: list[Cell]
    rounds: list[Round]
    ablation: list[Round]
    n_helpful: int
    gate: Gate
    labels: LabelSummary
    merits: dict[str, Merit]
    over: OverOptimisation | None
    path: list[Batch]
    iterations: list[Iteration]
    distances: list[Divergence]
    insides: list[Row]
    manifest: dict[str, Any]
    report: Path

    def cell(self, stage: str, name: str) -> Cell:
        """Returns one cell, of stage "before", "sl" or "rl". Raises KeyError for none."""
        for cell in self.cells:
            if (cell.stage, cell.name) == (stage, name):
                return cell
        raise KeyError(f"{stage}, {name}: no such cell")
