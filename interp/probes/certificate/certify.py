"""A certificate of a probe on conversations: its arithmetic, its decisions in another run, and a
margin for serving in that run's precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .... import _core
from ....model.transformer import HookedTransformer
from ...dictionaries import load_dictionary
from ..data import Dataset
from ..figures import proportion
from ..golden import with_golden_scores
from ..probe import Probe
from ..protocol.thresholds import halves
from ..reading import MAX_TOKENS, Progress, TokenIds, read_passes, side_by_side, tokenize
from ..rows import TokenRows, ragged
from .decisions import Decisions, certify_rows, certify_scores
from .margin import calibrate_margin
from .recorded import RecordedScores, record_scores

CONTROL = 0.1
"""The share of the bound by which decisions are certified once more, wrongly."""

Passes = Iterator[tuple[list[int], TokenRows]]


@dataclass
class _Tally:
    """The sums of a certificate while conversations pass."""

    tokens: int = 0
    certified: int = 0
    flipped: int = 0
    wrong: int = 0
    control_wrong: int = 0
    unsound: int = 0
    utilisation: float = 0.0
    premises: tuple[str, ...] = ()
    scores: dict[int, torch.Tensor] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)

    def add(self, found: Decisions, held: Sequence[int], lengths: Sequence[int]) -> None:
        """Counts the decisions of a pass over the conversations `held`, whose scored tokens are
        `lengths`."""
        self.tokens += len(found.scores_a)
        self.certified += int(found.certified.sum())
        self.flipped += int(found.flipped.sum())
        self.wrong += int((found.certified & found.flipped).sum())
        self.control_wrong += int((found.certified_by(CONTROL) & found.flipped).sum())
        self.unsound += int((~found.kept).sum())
        self.utilisation = max(self.utilisation, found.utilisation)
        self.premises = found.premises
        away = np.abs(found.scores_a - found.scores_b)
        stops = np.cumsum(np.asarray(lengths))
        for i, start, stop in zip(held, stops - np.asarray(lengths), stops, strict=True):
            self.scores[i] = torch.from_numpy(found.scores_a[start:stop]).float()
            self.distances[i] = float(away[start:stop].max())


def certify_probe(
    model: HookedTransformer,
    other: HookedTransformer | RecordedScores,
    probe: Probe,
    data: Dataset,
    *,
    record: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Returns what precision does to a probe on conversations, as JSON holds it.

    "arithmetic": both runs' scores against the bound of their own rounding. "decisions": after
    each token, how many cannot have flipped, how many flipped, and how many of those that a tenth
    of the bound would certify. "margin" and "margin_guarantee": for serving as `other` does.

    Args:
        model: Run a, the reference.
        other: Run b: the same weights under another policy, or scores recorded elsewhere.
        record: Where run a's running scores are written, for another platform's certificate.

    Raises ValueError for models of other weights, fewer than two conversations, and conversations
    without tokens to score.
    """
    tokens = tokenize(model, data, int(probe.metadata_.get("max_tokens", MAX_TOKENS)))
    tally = _Tally()
    if isinstance(other, RecordedScores):
        for held, rows in _passes(model, probe, tokens, progress):
            of = [other.scores[data.examples[i].id] for i in held]
            tally.add(certify_scores(probe, rows, of), held, _scored(probe, rows))
    else:
        if other.fingerprint() != model.fingerprint():
            raise ValueError(f"{other.name} and {model.name} have other weights: certify one model")
        passes = _passes(model, probe, tokens, progress), _passes(other, probe, tokens)
        for (held, rows_a), (_, rows_b) in zip(*passes, strict=True):
            tally.add(certify_rows(probe, rows_a, rows_b), held, _scored(probe, rows_a))
    if record is not None:
        record_scores(record, model, probe, data, [tally.scores[i] for i in range(len(data))])
    return _report(tally, data, probe, model, other)


def store_certificate(
    probe: Probe, model: HookedTransformer, other: HookedTransformer, report: dict[str, Any]
) -> None:
    """Brings a probe's metadata up to date: the margin for serving as `other` does, its guarantee,
    and golden scores under both policies. `save` then writes them."""
    names = ("margin", "margin_guarantee")
    probe.metadata_ |= {name: report[name] for name in names}
    probe.metadata_ |= {"margin_policy": other.ops.policy.name}
    for each in (model, other):
        probe.metadata_ = with_golden_scores(probe, each)


def _passes(
    model: HookedTransformer, probe: Probe, tokens: TokenIds, progress: Progress | None = None
) -> Passes:
    """Which conversations each pass held, and their rows at the probe's hooks."""
    name = probe.metadata_.get("dictionary")
    dictionary = None if name is None else load_dictionary(name)
    for held, found in read_passes(model, tokens, probe.hook_names, progress, "certifying"):
        lengths = [len(tokens.ids[i]) for i in held]
        rows = (
            ragged(x if dictionary is None else dictionary.encode_sparse(x), lengths)
            for x in (found[hook] for hook in probe.hook_names)
        )
        yield held, side_by_side(list(rows))


def _scored(probe: Probe, rows: TokenRows) -> list[int]:
    scored = rows.without_first(probe.skip_first)
    scored.check_none_empty()
    lengths: list[int] = scored.starts.diff().tolist()
    return lengths


def _report(
    tally: _Tally,
    data: Dataset,
    probe: Probe,
    model: HookedTransformer,
    other: HookedTransformer | RecordedScores,
) -> dict[str, Any]:
    distances = np.array([tally.distances[i] for i in range(len(data))])
    margin, guarantee = calibrate_margin(*(distances[half] for half in halves(data)))
    run_b = other.name if isinstance(other, RecordedScores) else other.ops.policy.name
    runs_here = 1 if isinstance(other, RecordedScores) else 2
    return {
        "kind": "measured",
        "premises": list(tally.premises),
        "run_a": model.ops.policy.name,
        "run_b": run_b,
        "numerics_version": _core.numerics_version,
        "data": data.provenance(),
        "threshold": probe.threshold_,
        "arithmetic": {
            "scores": tally.tokens * runs_here,
            "outside": tally.unsound,
            "largest_share_of_bound": tally.utilisation,
        },
        "decisions": {
            "tokens": tally.tokens,
            "certified": proportion(tally.certified, tally.tokens).to_dict(),
            "flipped": tally.flipped,
            "certified_and_flipped": tally.wrong,
            "certified_and_flipped_with_a_tenth_of_the_bound": tally.control_wrong,
        },
        "largest_distance": float(distances.max()),
        "margin": margin,
        "margin_guarantee": guarantee,
    }
