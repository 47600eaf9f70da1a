"""Features of a dictionary that differ between the better and the worse answers to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...interp.dictionaries import Dictionary
from ...model.transformer import HookedTransformer
from ...precision.statistics import clustered_mean
from ..preferences.pairs import AnswerPair
from .exchange import exchange_ids


@dataclass(frozen=True)
class ChangedFeature:
    """One feature, by its largest activation over the tokens of an answer.

    Attributes:
        chosen, rejected: Its mean over the better answers, and over the worse ones.
        difference, low, high: chosen - rejected, with an interval over prompts that holds for all
            tested features at once, at 95%.
    """

    feature: int
    chosen: float
    rejected: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ChangedFeatures:
    """The features of a dictionary over pairs of answers.

    Attributes:
        hook: The hook that the dictionary reads.
        n: Pairs whose better answer is known.
        n_tested: Features that fire in at least one answer.
        n_changed: Those whose interval has no 0 in it; `features` are the largest of them.
    """

    hook: str
    n: int
    n_tested: int
    n_changed: int
    features: list[ChangedFeature]


def changed_features(
    model: HookedTransformer, dictionary: Dictionary, pairs: Sequence[AnswerPair], *, top: int = 10
) -> ChangedFeatures:
    """Returns the features that fire otherwise in better than in worse answers.

    Every feature that fires at all is tested, so intervals are Bonferroni's: with a thousand of
    them, some would differ by chance. Where there are so few prompts that a sign test could show
    none, none is shown, however small the spread.

    Raises ValueError for pairs of fewer than two prompts whose better answer is known.
    """
    known = [pair for pair in pairs if pair.truth is not None and pair.truth != 0.5]
    clusters = [pair.cluster for pair in known]
    if len(set(clusters)) < 2:
        raise ValueError("pairs: expected two prompts or more whose better answer is known")
    sides: list[list[np.ndarray]] = [[], []]
    for pair in known:
        assert pair.truth is not None, "pairs of known truth"
        texts = (pair.first, pair.second)[:: 1 if pair.truth > 0.5 else -1]
        for side, text in zip(sides, texts, strict=True):
            side.append(_strongest(model, dictionary, pair.prompt, text))
    chosen, rejected = (np.stack(side) for side in sides)
    tested = np.flatnonzero((chosen != 0).any(0) | (rejected != 0).any(0)).tolist()
    enough = 2.0 ** (1 - len(set(clusters))) * len(tested) <= 0.05
    found = []
    for feature in tested:
        differences = (chosen[:, feature] - rejected[:, feature]).tolist()
        gap = clustered_mean(differences, clusters, confidence=1 - 0.05 / len(tested))
        if enough and (gap.interval.low > 0 or gap.interval.high < 0):
            means = float(chosen[:, feature].mean()), float(rejected[:, feature].mean())
            ends = gap.interval.low, gap.interval.high
            found.append(ChangedFeature(feature, *means, gap.mean, *ends))
    found.sort(key=lambda each: (-abs(each.difference), each.feature))
    hook = dictionary.cfg.hook_name
    return ChangedFeatures(hook, len(known), len(tested), len(found), found[:top])


@torch.no_grad()
def _strongest(
    model: HookedTransformer, dictionary: Dictionary, prompt: str, answer: str
) -> np.ndarray:
    """Each feature's largest activation over the answer's tokens, fp64 [F]."""
    hook = dictionary.cfg.hook_name
    asked, said = exchange_ids(model, prompt, answer)
    tokens = torch.tensor([[*asked, *said]], device="cpu")
    _, cache = model.run_with_cache(tokens, hook, return_type=None)
    rows = cache[hook][0].flatten(1)[len(asked) :]
    found: np.ndarray = dictionary.encode(rows).double().amax(0).numpy()
    return found
