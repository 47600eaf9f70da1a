"""Every activation of a dictionary on a text, kept in memory: 8 bytes each, which at 32 active
features a token is 256 MB for a million tokens.

Shapes: N tokens, S sequences, F features, E activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from ...model.transformer import HookedTransformer
from ..activations.read import norm_limits, outliers, read_rows
from ..activations.sequences import Batch, batches
from ..dictionaries import Dictionary

BATCH_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class FeatureSurvey:
    """The places where each feature fired, and how strongly.

    Rows of massive norm (`activations/read.py`) count as silent.

    Attributes:
        tokens: int64 [N], sequence after sequence.
        starts: int64 [S + 1]: sequence s has the tokens from starts[s] to starts[s + 1].
        token_indptr: int64 [N + 1]: token i has the entries token_indptr[i] to token_indptr[i + 1]
            of `features`.
        features: int32 [E], by token.
        indptr: int64 [F + 1]: feature f has the entries indptr[f] to indptr[f + 1] of `at` and
            `values`.
        at: int64 [E], the token of each activation, by feature, ascending.
        values: fp32 [E], by feature.
    """

    tokens: torch.Tensor
    starts: torch.Tensor
    token_indptr: torch.Tensor
    features: torch.Tensor
    indptr: torch.Tensor
    at: torch.Tensor
    values: torch.Tensor

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def of(self, feature: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the tokens at which a feature fires, ascending, and how strongly."""
        begin, end = int(self.indptr[feature]), int(self.indptr[feature + 1])
        return self.at[begin:end], self.values[begin:end]


def survey_features(
    model: HookedTransformer,
    dictionary: Dictionary,
    sequences: Iterable[list[int]],
    *,
    n_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureSurvey:
    """Returns every activation of a dictionary on a text, in one pass that ends at its hook.

    Args:
        sequences: Of token ids (`Packing.sequences`).
        n_tokens: Tokens to run, up to the end of a sequence; fewer where the text ends.
        progress: Called with tokens done and tokens in all.

    Raises ValueError for a text without a sequence.
    """
    hook = dictionary.cfg.hook_name
    limits: dict[str, float] = {}
    tokens, lengths, counts, features, values = [], [], [], [], []
    seen = 0
    for batch in _until(batches(sequences, BATCH_TOKENS), n_tokens):
        rows = read_rows(model, batch, [hook])
        limits = limits or norm_limits(model, [batch], [hook])
        found = dictionary.encode_sparse(rows[hook])
        n_active = found.indptr.diff()
        silent = outliers(rows, limits)
        kept = ~silent.repeat_interleave(n_active)
        tokens.append(batch.tokens[batch.mask])
        lengths.append(batch.mask.sum(1))
        counts.append(n_active.where(~silent, 0))
        features.append(found.indices[kept])
        values.append(found.values[kept])
        seen += batch.n_tokens
        if progress is not None:
            progress(min(seen, n_tokens), n_tokens)
    if not tokens:
        raise ValueError("survey_features: the text has no document that is long enough")
    return _by_feature(
        torch.cat(tokens),
        _sums(torch.cat(lengths)),
        _sums(torch.cat(counts)),
        torch.cat(features),
        torch.cat(values),
        dictionary.cfg.d_sae,
    )


def _until(found: Iterable[Batch], n_tokens: int) -> Iterator[Batch]:
    seen = 0
    for batch in found:
        yield batch
        if (seen := seen + batch.n_tokens) >= n_tokens:
            return


def _by_feature(
    tokens: torch.Tensor,
    starts: torch.Tensor,
    token_indptr: torch.Tensor,
    features: torch.Tensor,
    values: torch.Tensor,
    n_features: int,
) -> FeatureSurvey:
    order = torch.argsort(features, stable=True)
    at = torch.repeat_interleave(torch.arange(len(tokens), device="cpu"), token_indptr.diff())
    indptr = _sums(torch.bincount(features, minlength=n_features))
    return FeatureSurvey(tokens, starts, token_indptr, features, indptr, at[order], values[order])


def _sums(counts: torch.Tensor) -> torch.Tensor:
    """Where each of several runs begins, and where the last one ends."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int64)
