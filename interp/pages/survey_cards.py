"""Cards of features that were surveyed (`examples/survey.py`): `cards.py` says what they hold.

Shapes: E activations of one feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..examples.examples import STEPS
from ..examples.survey import FeatureSurvey
from .cards import Card

TOP, OF_BAND, WINDOW, NEIGHBOURS, SAMPLE = 8, 3, 24, 5, 400
QUARTERS = ("75–100%", "50–75%", "25–50%", "0–25%")
OCTAVE = 4
"""Bins of a histogram to an octave."""


def survey_card(found: FeatureSurvey, feature: int, strings: Sequence[str]) -> Card:
    """Returns a feature's card, without what it promotes.

    Args:
        strings: The text of every token of the vocabulary.
    """
    at_E, values_E = found.of(feature)
    if not len(at_E):
        return {"id": feature, "density": 0.0, "largest": 0.0, "examples": []}
    largest = float(values_E.max())
    order = torch.argsort(values_E, descending=True, stable=True)
    top = list(_of_different_sequences(found, at_E[order], TOP))
    chosen = [int(order[i]) for i in top]
    bands = [("top", len(chosen))]
    for quarter, name in enumerate(QUARTERS):
        begin, end = (len(order) * q // 4 for q in (quarter, quarter + 1))
        step = max(1, (end - begin) // OF_BAND)
        picked = order[begin:end:step][:OF_BAND].tolist()
        chosen += picked
        bands.append((name, len(picked)))
    examples = [_example(found, at_E, values_E, i, largest, strings) for i in chosen]
    return {
        "id": feature,
        "density": len(at_E) / found.n_tokens,
        "largest": largest,
        "mean": float(values_E.double().mean()),
        "examples": examples,
        "bands": bands,
        "histogram": _histogram(values_E),
        "neighbours": _neighbours(found, feature, at_E),
    }


def _of_different_sequences(found: FeatureSurvey, at: torch.Tensor, n: int) -> Iterator[int]:
    """The first places in `at` of n sequences."""
    sequences: set[int] = set()
    for i, sequence in enumerate(_sequence_of(found, at).tolist()):
        if sequence not in sequences:
            yield i
            sequences.add(sequence)
        if len(sequences) == n:
            return


def _sequence_of(found: FeatureSurvey, at: torch.Tensor) -> torch.Tensor:
    return torch.searchsorted(found.starts, at, right=True) - 1


def _example(
    found: FeatureSurvey,
    at_E: torch.Tensor,
    values_E: torch.Tensor,
    i: int,
    largest: float,
    strings: Sequence[str],
) -> dict[str, Any]:
    """The tokens about the i-th activation, the peak in the second half where it can be."""
    peak = int(at_E[i])
    sequence = int(_sequence_of(found, at_E[i]))
    begin = max(int(found.starts[sequence]), peak + 1 - (WINDOW - WINDOW // 4))
    end = min(int(found.starts[sequence + 1]), begin + WINDOW)
    first, last = torch.searchsorted(at_E, torch.tensor([begin, end], device="cpu")).tolist()
    steps = [0] * (end - begin)
    for place, value in zip(at_E[first:last].tolist(), values_E[first:last].tolist(), strict=True):
        steps[place - begin] = max(1, round(STEPS * value / largest))
    tokens = [strings[token] for token in found.tokens[begin:end].tolist()]
    return {"t": tokens, "a": steps, "p": peak - begin}


def _histogram(values_E: torch.Tensor) -> dict[str, Any]:
    """Counts by quarters of an octave, from the least activation to the largest."""
    bins = (values_E.double().log2() * OCTAVE).floor().long()
    low = max(int(bins.min()), int(bins.max()) - 12 * OCTAVE)  # twelve octaves are enough
    counts = torch.bincount((bins - low).clamp(min=0))
    return {
        "low": 2 ** (low / OCTAVE),
        "ratio": 2 ** (1 / OCTAVE),
        "counts": counts.tolist(),
    }


def _neighbours(found: FeatureSurvey, feature: int, at_E: torch.Tensor) -> list[tuple[int, float]]:
    """Features that fire where this one does, by the cosine of their firing; with the part of this
    one's firings at which they do, by up to 400 of them."""
    sample = at_E[:: max(1, math.ceil(len(at_E) / SAMPLE))]
    begin, end = found.token_indptr[sample], found.token_indptr[sample + 1]
    length = end - begin
    offsets = torch.arange(int(length.sum()), device="cpu") - torch.repeat_interleave(
        length.cumsum(0) - length, length
    )
    others = found.features[torch.repeat_interleave(begin, length) + offsets]
    names, counts = torch.unique(others, return_counts=True)
    kept = (names != feature) & (counts >= min(2, len(sample)))
    names, counts = names[kept].long(), counts[kept]
    fired = found.indptr[names + 1] - found.indptr[names]
    best = torch.argsort(counts / fired.double().sqrt(), descending=True, stable=True)
    return [(int(names[i]), int(counts[i]) / len(sample)) for i in best[:NEIGHBOURS]]
