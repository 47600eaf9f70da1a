"""Choices by cross-validation inside a training split, without splitting groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .extra import scikit_learn
from .figures import auroc

T = TypeVar("T")
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

N_FOLDS = 5


def grouped_folds(
    y: Array, groups: Sequence[Any] | None, n_folds: int = N_FOLDS, seed: int = 0
) -> Iterator[tuple[Indices, Indices]]:
    """Yields (train, test) indices; no group is in both, and classes are spread evenly.

    Raises ValueError where the groups are too few, or a fold would train on one class.
    """
    selection = scikit_learn("model_selection")
    labels = list(range(len(y))) if groups is None else list(groups)
    numbers = {g: i for i, g in enumerate(dict.fromkeys(labels))}
    if len(numbers) < n_folds:
        raise ValueError(f"{len(numbers)} groups for {n_folds} folds: bring more groups")
    codes = np.array([numbers[g] for g in labels])
    folds = selection.StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for train, test in folds.split(np.zeros(len(y)), y, codes):
        if len(set(y[train])) < 2:
            raise ValueError("a fold holds every example of one class: bring more groups of it")
        yield train, test


def out_of_fold(
    scores: Callable[[Indices, Indices], Array], y: Array, groups: Sequence[Any] | None
) -> Array:
    """Returns the score of each example by what was fitted on the folds without it."""
    found = np.empty(len(y))
    for train, test in grouped_folds(y, groups):
        found[test] = scores(train, test)
    return found


def best_of(
    candidates: Sequence[T],
    scores: Callable[[T], Callable[[Indices, Indices], Array]],
    y: Array,
    groups: Sequence[Any] | None,
) -> T:
    """Returns the candidate of the largest out-of-fold AUROC; of equal ones the first.

    Args:
        scores: Of a candidate, what fits on some indices and returns the scores of others.
    """
    found = [auroc(out_of_fold(scores(c), y, groups), y) for c in candidates]
    return candidates[int(np.argmax(found))]
