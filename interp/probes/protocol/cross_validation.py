"""Scores of every conversation by probes that were fitted, and chosen, without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..probe import Probe
from ..selection import grouped_folds
from .baselines import Scores
from .choice import Choice, Material, ProbeConfig, choose, fit
from .scoring import running_scores

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Split = tuple[Indices, Indices]


@dataclass(frozen=True)
class OutOfFold:
    """The findings of cross-validation.

    Attributes:
        scores: fp64 [B], each conversation's by the probe of the folds without it.
        running: Of each conversation, its score after each scored token, fp32 [T].
        baselines: fp64 [B], by name.
        folds: Train and test indices.
        choices: What each fold's training split chose.
        probes: The probe of each fold.
    """

    scores: Array
    running: tuple[torch.Tensor, ...]
    baselines: dict[str, Array]
    folds: tuple[Split, ...]
    choices: tuple[Choice, ...]
    probes: tuple[Probe, ...]


def cross_validate(
    config: ProbeConfig,
    material: Material,
    baselines: dict[str, Scores],
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> OutOfFold:
    """Runs the outer folds; what is chosen is chosen inside each one's training split.

    Raises ValueError where groups or classes are too few to fold.
    """
    y = material.y
    folds = tuple(grouped_folds(y, material.groups, config.n_folds, config.seed))
    scores = np.empty(len(y))
    running: list[torch.Tensor] = [torch.empty(0, dtype=torch.float32, device="cpu")] * len(y)
    surface = {name: np.empty(len(y)) for name in baselines}
    choices, probes = [], []
    for number, (train, test) in enumerate(folds):
        choice = choose(config, material, train)
        probe = fit(config, choice, material, train)
        rows = material.rows(choice.hook_names).take(torch.from_numpy(test))
        for i, each in zip(test, running_scores(probe, rows), strict=True):
            running[int(i)] = each
            scores[i] = float(each[-1])
        for name, of in baselines.items():
            surface[name][test] = of(train, test)
        choices.append(choice)
        probes.append(probe)
        if progress is not None:
            progress("folds", number + 1, len(folds))
    return OutOfFold(scores, tuple(running), surface, folds, tuple(choices), tuple(probes))


def leave_one_out(
    config: ProbeConfig,
    material: Material,
    labels: Sequence[str],
    baselines: dict[str, Scores],
) -> dict[str, dict[str, Any]]:
    """Returns, for each label that holds both classes, the scores of its conversations by what was
    chosen and fitted on all others: "scores", "y", "groups", the "choice", and the baselines'
    "surface". No group is on both sides."""
    found: dict[str, dict[str, Any]] = {}
    names = np.array(labels)
    groups = np.array([str(g) for g in material.groups])
    for name in dict.fromkeys(labels):
        test = np.flatnonzero(names == name)
        train = np.flatnonzero((names != name) & ~np.isin(groups, groups[test]))
        if len(set(material.y[test])) < 2 or len(set(material.y[train])) < 2:
            continue
        choice = choose(config, material, train)
        probe = fit(config, choice, material, train)
        rows = material.rows(probe.hook_names).take(torch.from_numpy(test))
        found[name] = {
            "scores": probe.decision_function(rows).double().numpy(),
            "y": material.y[test],
            "groups": groups[test].tolist(),
            "choice": choice,
            "surface": {b: of(train, test) for b, of in baselines.items()},
        }
    return found
