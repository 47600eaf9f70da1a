"""Probes fitted before training, and what they are worth after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...interp.probes import LogisticProbe, Probe
from ...interp.probes.data import Dataset, check_no_leak
from ...interp.probes.figures import auroc, percentile_interval, resampled
from ...interp.probes.reading import check_hooks, read, tokenize
from ...model.transformer import HookedTransformer


@dataclass(frozen=True)
class Staleness:
    """One probe on two models, over the same held-out texts.

    Attributes:
        before, after: AUROC on the model that it was fitted on, and on the trained one.
        refitted: AUROC after, of a probe that was fitted anew: what is still there to be read.
        difference, low, high: after - before, with an interval over draws of whole groups.
    """

    before: float
    after: float
    refitted: float
    difference: float
    low: float
    high: float

    @property
    def is_stale(self) -> bool:
        """Whether the probe was shown to have lost."""
        return self.high < 0


def staleness(
    before: HookedTransformer,
    after: HookedTransformer,
    train: Dataset,
    test: Dataset,
    *,
    hook_name: str | None = None,
    max_tokens: int = 128,
) -> Staleness:
    """Fits a probe on the model before training and applies it after.

    Args:
        train, test: Labelled texts without a group in common.
        hook_name: None takes the residual stream after the middle block.

    Raises LeakError for a test text that resembles a training one, ValueError for no such hook.
    """
    check_no_leak(train, test, threshold=1.0)
    hook = hook_name or f"blocks.{before.config.n_layers // 2}.hook_resid_post"
    check_hooks(before, [hook])
    old, new = (_fitted(model, train, hook, max_tokens) for model in (before, after))
    scores = [
        _scores(model, probe, test, max_tokens)
        for model, probe in ((before, old), (after, old), (after, new))
    ]
    draws = resampled(scores[:2], test.y, test.groups)
    interval = percentile_interval(draws[1] - draws[0])
    first, second, anew = (auroc(each, test.y) for each in scores)
    return Staleness(first, second, anew, second - first, interval.low, interval.high)


def _fitted(model: HookedTransformer, train: Dataset, hook: str, max_tokens: int) -> Probe:
    rows = read(model, tokenize(model, train, max_tokens), [hook])[hook]
    labels = torch.tensor([e.label for e in train], device="cpu")
    return LogisticProbe(hook, skip_first=1).fit(rows, labels, groups=train.groups)


def _scores(model: HookedTransformer, probe: Probe, test: Dataset, max_tokens: int) -> np.ndarray:
    rows = read(model, tokenize(model, test, max_tokens), [probe.hook_name])[probe.hook_name]
    return probe.decision_function(rows).double().numpy()
