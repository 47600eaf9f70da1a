"""Probes fitted before training, and what they are worth after it."""

from __future__ import annotations

from dataclasses import dataclass

from ...interp.probes.data import Dataset, check_no_leak
from ...interp.probes.figures import auroc, percentile_interval, resampled
from ...model.transformer import HookedTransformer
from ..text_probe import fitted_probe, probe_scores


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
    old, new = (
        fitted_probe(model, train, hook_name, max_tokens, skip_first=1) for model in (before, after)
    )
    scores = [
        probe_scores(model, probe, test, max_tokens).double().numpy()
        for model, probe in ((before, old), (after, old), (after, new))
    ]
    draws = resampled(scores[:2], test.y, test.groups)
    interval = percentile_interval(draws[1] - draws[0])
    first, second, anew = (auroc(each, test.y) for each in scores)
    return Staleness(first, second, anew, second - first, interval.low, interval.high)
