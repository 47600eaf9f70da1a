"""Finds the places where each feature fires most.

Shapes: F features, n examples, W tokens of an example, S sequences of a batch, T its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ...model.transformer import HookedTransformer
from ..activations.read import OUTLIER_FACTOR, read_rows, row_norms
from ..activations.sequences import Batch, Packing, batches
from ..dictionaries import Dictionary
from .examples import STEPS, Examples
from .promoted import promoted_tokens

BATCH_TOKENS = 2048


@dataclass
class _Best:
    """The best places so far: per feature n values, and the tokens and activations about them."""

    values: torch.Tensor
    tokens: torch.Tensor
    acts: torch.Tensor
    lengths: torch.Tensor
    peaks: torch.Tensor

    def merge(self, other: _Best) -> _Best:
        n = self.values.shape[1]
        values = torch.cat([self.values, other.values], 1)
        order = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :n]

        def pick(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            both = torch.cat([a, b], 1)
            if both.ndim == 2:
                return both.gather(1, order)
            return both.gather(1, order[:, :, None].expand(-1, -1, both.shape[2]))

        pairs = [(getattr(self, name), getattr(other, name)) for name in self.__dict__]
        return _Best(*[pick(a, b) for a, b in pairs])


def collect_examples(
    model: HookedTransformer,
    dictionary: Dictionary,
    documents: Iterable[str],
    *,
    n_tokens: int,
    per_feature: int = 5,
    window: int = 24,
    packing: Packing | None = None,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Examples:
    """Returns each feature's strongest examples in a text, at most one from a sequence.

    Outlier rows (`activations/read.py`), such as the first position's, count as silent.

    Args:
        n_tokens: Tokens to run; fewer where the text ends.
        per_feature: Examples kept of each feature.
        window: Tokens of an example, the peak in its second half where it can be.
        source: What to call the text in the metadata.
    """
    if model.tokenizer is None:
        raise ValueError("collect_examples: this model was loaded without a tokenizer")
    packing = packing or Packing(min(256, model.config.n_ctx))
    sequences = packing.sequences(documents, model.tokenizer)
    fired = torch.zeros(dictionary.cfg.d_sae, dtype=torch.int64, device="cpu")
    best: _Best | None = None
    limit, seen = None, 0
    for batch in batches(sequences, BATCH_TOKENS):
        rows = read_rows(model, batch, [dictionary.cfg.hook_name])[dictionary.cfg.hook_name]
        norms = row_norms(rows)
        limit = OUTLIER_FACTOR * float(norms.median()) if limit is None else limit
        acts = dictionary.encode(rows)
        acts[~(norms <= limit)] = 0
        fired += (acts > 0).sum(0)
        found = _best_of(batch, acts, per_feature, window)
        best = found if best is None else best.merge(found)
        seen += batch.n_tokens
        if progress is not None:
            progress(min(seen, n_tokens), n_tokens)
        if seen >= n_tokens:
            break
    if best is None:
        raise ValueError("collect_examples: the text has no document that is long enough")
    return _finished(model, dictionary, best, fired, seen, source)


def _best_of(batch: Batch, acts_TF: torch.Tensor, n: int, window: int) -> _Best:
    lengths = batch.mask.sum(1)
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    pieces = [acts_TF[a:b] for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
    peaks = [piece.max(0) for piece in pieces]
    values_FS = torch.stack([peak.values for peak in peaks], 1)
    at_FS = torch.stack([peak.indices for peak in peaks], 1)
    top = torch.sort(values_FS, dim=1, descending=True, stable=True)
    chosen = top.indices[:, :n]
    values = _padded(top.values[:, :n], n)
    at = at_FS.gather(1, chosen)
    begin = (at - (window - window // 4) + 1).clamp(min=0)
    length = (lengths[chosen] - begin).clamp(max=window)
    offsets = torch.arange(window, device="cpu")
    inside = offsets < length[:, :, None]
    rows = (starts[chosen] + begin)[:, :, None] + offsets.where(inside, 0)
    features = torch.arange(acts_TF.shape[1], device="cpu")[:, None, None]
    tokens_T = batch.tokens[batch.mask]
    active = inside & (values_FS.gather(1, chosen) > 0)[:, :, None]
    return _Best(
        values,
        _padded(tokens_T[rows].where(active, 0).to(torch.int32), n),
        _padded(acts_TF[rows, features].where(active, 0.0), n),
        _padded(length.where(active[:, :, 0], 0), n),
        _padded((at - begin).where(active[:, :, 0], 0), n),
    )


def _padded(x: torch.Tensor, n: int) -> torch.Tensor:
    """Fills up the second axis with zeros where a batch has fewer sequences than n."""
    if x.shape[1] == n:
        return x
    rest = x.new_zeros(x.shape[0], n - x.shape[1], *x.shape[2:])
    return torch.cat([x, rest], 1)


def _finished(
    model: HookedTransformer,
    dictionary: Dictionary,
    best: _Best,
    fired: torch.Tensor,
    n_tokens: int,
    source: str,
) -> Examples:
    largest = best.values[:, 0]
    scale = (largest / STEPS).where(largest > 0, 1.0)
    steps = (best.acts / scale[:, None, None]).round().clamp(0, STEPS)
    promoted, suppressed = promoted_tokens(model, dictionary)
    return Examples(
        tokens=best.tokens,
        steps=steps.to(torch.uint8),
        lengths=best.lengths.to(torch.uint8),
        peaks=best.peaks.to(torch.uint8),
        largest=largest,
        density=(fired.double() / n_tokens).float(),
        promoted=promoted,
        suppressed=suppressed,
        metadata={"text": source, "n_tokens": n_tokens},
    )
