"""The first pass of an evaluation, which stops at the dictionary's hook: what rows show.

Shapes: N rows, F features, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...model.transformer import HookedTransformer
from ..activations.read import norm_limits, outliers, read_rows
from ..activations.sequences import batches
from ..dictionaries import Dictionary
from .activity import Activity
from .evaluated_text import EvaluatedText
from .reconstruct import encode, hooks_of, reconstruct
from .row_sums import RowSums

BATCH_TOKENS = 4096

Count = Callable[[int], None]
"""Called with the number of tokens done so far."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Measurements on the rows of a text.

    Attributes:
        limits: The largest norm that is no outlier, by hook.
        kept: Sums over the evaluated rows without outliers.
        every: Sums over all of the evaluated rows.
        l0: Active features in a row of `kept`.
        activity: Counts over the longer text, without outliers.
        n_dead_tokens: Tokens of the longer text.
    """

    limits: dict[str, float]
    kept: RowSums
    every: RowSums
    l0: float
    activity: Activity
    n_dead_tokens: int


def survey(
    model: HookedTransformer,
    dictionary: Dictionary,
    text: EvaluatedText,
    exclude_outliers: bool,
    count: Count,
) -> Survey:
    """Runs the model up to the dictionary's hooks on the evaluated text, then on the rest."""
    names = hooks_of(dictionary)
    first = batches(text.sequences, BATCH_TOKENS)
    limits = norm_limits(model, first, names) if exclude_outliers else {}
    kept, every = RowSums(dictionary.cfg.d_out), RowSums(dictionary.cfg.d_out)
    activity = Activity(dictionary.cfg.d_sae)
    done = 0
    for batch in batches(text.sequences, BATCH_TOKENS):
        rows = read_rows(model, batch, names)
        for part in reconstruct(dictionary, rows, ~outliers(rows, limits)):
            every.add(part.x, part.x_hat)
            kept.add(part.x[part.kept], part.x_hat[part.kept])
            activity.add(part.features, part.kept)
        count(done := done + batch.n_tokens)
    l0 = activity.l0()
    for batch in batches(text.rest, BATCH_TOKENS):
        rows = read_rows(model, batch, names)
        for features, kept_N in encode(dictionary, rows, ~outliers(rows, limits)):
            activity.add(features, kept_N)
        count(done := done + batch.n_tokens)
    return Survey(limits, kept, every, l0, activity, done)
