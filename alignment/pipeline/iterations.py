"""Rounds of preferences: each samples, labels and optimises anew, from the model before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..preferences import Gate
from ..rewards import Merit, OverOptimisation
from ..row_file import Row
from .optimisation_path import Batch
from .reward import SummedReward
from .stages import Stages


@dataclass(frozen=True)
class Iteration:
    """One round.

    Attributes:
        n_asked: New prompts that the model was asked before it; none before the first.
        failures: How many of these it answered as it should not, by kind: they join the prompts.
        n_pairs: Pairs that were labelled.
        accuracy, low: The judge's on the gate's pairs, asked of the model of the moment.
        stopped: "gate" or "merit" where nothing was optimised in it.
        weights: The digest of what it made; empty where it was stopped.
    """

    number: int
    n_asked: int
    failures: dict[str, int]
    n_pairs: int
    accuracy: float
    low: float
    stopped: str
    weights: str


@dataclass(frozen=True)
class Reinforced:
    """The part of a run behind its gate.

    Attributes:
        stopped: What stopped it before anything was optimised.
        path: Of all rounds, one behind another; distances are from the policy that each began from.
    """

    stopped: str = ""
    merits: dict[str, Merit] = field(default_factory=dict)
    over: OverOptimisation | None = None
    path: list[Batch] = field(default_factory=list)
    iterations: list[Iteration] = field(default_factory=list)


def reinforced(stages: Stages, revisions: Sequence[Row], form: str, gated: Gate) -> Reinforced:
    """Runs every round, until one is stopped; those before it count then."""
    found = Reinforced(stopped="" if gated.passed or stages.config.ungated else "gate")
    if found.stopped:
        return found
    for number in range(1, stages.config.iterations + 1):
        failures: list[Row] = []
        if number > 1:
            failures = stages.begin(number)
            labels, gated = stages.gated()
            form = labels.form
        found = _round(stages, revisions, form, found, number, failures, gated)
        if found.iterations[-1].stopped:
            break
    return found


def _round(
    stages: Stages,
    revisions: Sequence[Row],
    form: str,
    found: Reinforced,
    number: int,
    failures: Sequence[Row],
    gated: Gate,
) -> Reinforced:
    kinds = dict(Counter(str(row["kind"]) for row in failures))
    n_asked = len(stages.data.red_team) if number > 1 else 0
    made = Iteration(number, n_asked, kinds, 0, gated.accuracy, gated.low, "gate", "")
    if not (gated.passed or stages.config.ungated):
        return replace(found, iterations=[*found.iterations, made])
    labelled = stages.labelled(stages.pairs(revisions), form)
    made = replace(made, n_pairs=len(labelled), stopped="")
    reward: SummedReward | None = None
    if stages.config.rl["method"] != "dpo":
        reward, merits = stages.rewards(labelled)
        if number == 1:
            found = replace(found, merits=merits)
        if not all(merit.passed for merit in merits.values()):
            made = replace(made, stopped="merit")
            stopped = "merit" if number == 1 else ""
            return replace(found, stopped=stopped, iterations=[*found.iterations, made])
        if number == 1:
            found = replace(found, over=stages.over_optimised(reward))
    trained, path = stages.reinforced(labelled, reward)
    made = replace(made, weights=trained.weights_digest)
    last = found.path[-1].step if found.path else 0
    behind = [replace(batch, step=last + batch.step) for batch in path]
    return replace(found, path=[*found.path, *behind], iterations=[*found.iterations, made])
