"""From labelled conversations to a probe with a report, by one fixed protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....model.transformer import HookedTransformer
from ...dictionaries import load_dictionary
from ..data import Dataset, check_no_leak
from ..page import write_report
from ..probe import Probe
from ..reading import Progress, check_hooks, read, tokenize
from .baselines import surface_baselines
from .choice import Material, ProbeConfig, choose, fit
from .cross_validation import OutOfFold, cross_validate, leave_one_out
from .guarantee import false_positive_guarantee
from .judging import judge
from .left_out import left_out_figures
from .scoring import scorable, score_texts
from .thresholds import benign_alarms, frozen_alarms, halves, threshold_of

TARGET_FPR = 0.01
"""The share of benign conversations that a probe's own threshold may flag, unless asked for
another."""

LEFT_OUT = ("category", "source", "dataset")


@dataclass(frozen=True)
class TrainedProbe:
    """A probe fitted on all the training data, and what the protocol found out.

    Attributes:
        report: As report.json holds it: ids, categories and figures, no text.
        path: The folder with the probe, report.json and report.html; None where none was asked for.
    """

    probe: Probe
    report: dict[str, Any]
    path: Path | None


def train_probe(
    model: HookedTransformer,
    data: Dataset,
    config: ProbeConfig,
    *,
    benign: Dataset | None = None,
    leave_out: Sequence[str] = (),
    target_fpr: float = TARGET_FPR,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainedProbe:
    """Chooses, fits and judges a probe.

    Every figure is of conversations that the probe which scored them was neither fitted nor chosen
    on. The probe that is returned is chosen and fitted on all of `data`.

    Args:
        data: Labelled conversations, whose groups no fold splits.
        config: What may be chosen, fixed beforehand.
        benign: Other conversations, all 0: half of them set the thresholds, half check them.
            Without them the probe's threshold comes from its cross-validated negatives.
        leave_out: "category", "source", "dataset" (of several joined by "+"): train without each
            of them in turn and judge on it.
        target_fpr: The share of benign conversations that the probe's own threshold may flag.
        output: A folder for the probe, report.json and report.html.
        progress: Called with a stage's name, tokens done and tokens in all.

    Raises:
        ValueError: too few groups or classes, benign data with positives, options out of range, a
            name that is no hook.
        LeakError: benign conversations that resemble some of `data`.
    """
    _check(data, benign, leave_out, target_fpr)
    check_hooks(model, config.hooks_read)
    dictionary = None if config.dictionary is None else load_dictionary(config.dictionary)
    tokens = tokenize(model, data, config.max_tokens)
    rows = read(model, tokens, config.hooks_read, dictionary=dictionary, progress=progress)
    material = Material(config, rows, data.y, data.groups)
    baselines = surface_baselines(model, tokens, data.y, data.groups)
    found = cross_validate(config, material, baselines, progress=progress)
    everything = np.arange(len(data))
    probe = fit(config, choose(config, material, everything), material, everything)
    report = {
        "data": data.provenance(),
        "config": dataclasses.asdict(config),
        "choices": [c.to_dict() for c in found.choices],
        "n_tokens": sum(tokens.lengths),
        **judge(found.scores, data.y, data.groups, found.baselines),
        "left_out": {
            by: left_out_figures(leave_one_out(config, material, _labels(data, by), baselines))
            for by in leave_out
        },
    }
    metadata = _metadata(data, config)
    if benign is None:
        negatives = [found.running[int(i)] for i in np.flatnonzero(data.y == 0)]
        probe.threshold_ = threshold_of(negatives, target_fpr)
    else:
        benign = scorable(model, benign, config.max_tokens, config.skip_first)
        running = score_texts(
            model, benign, [probe, *found.probes], config.max_tokens, dictionary=dictionary,
            progress=progress, stage="benign",
        )  # fmt: skip
        setting, checking = halves(benign)
        probe.threshold_ = threshold_of([running[0][i] for i in setting], target_fpr)
        report |= {
            "benign": benign.provenance(),
            "alarms": frozen_alarms(found, data.y, running[1:], setting),
            "benign_check": benign_alarms(running[0], setting, checking),
        }
        metadata["guarantee"] = report["guarantee"] = false_positive_guarantee(
            [running[0][i] for i in checking], probe.threshold_, benign, config.max_tokens
        )
    report |= {"target_fpr": target_fpr, "threshold": probe.threshold_}
    probe.metadata_ = metadata
    probe.belongs_to(model)
    probe.report_ = report
    path = None if output is None else Path(output)
    if path is not None:
        probe.save(path)
        write_report(path, {**report, "conversations": _conversations(data, found)})
    return TrainedProbe(probe, report, path)


def _check(
    data: Dataset, benign: Dataset | None, leave_out: Sequence[str], target_fpr: float
) -> None:
    if unknown := set(leave_out) - set(LEFT_OUT):
        raise ValueError(f"leave_out: {min(unknown)!r}; expected {', '.join(LEFT_OUT)}")
    if not 0 < target_fpr < 1:
        raise ValueError(f"target_fpr = {target_fpr}: expected a share between 0 and 1")
    if benign is not None:
        if benign.y.any():
            raise ValueError(f"{benign.name}: benign data holds {int(benign.y.sum())} positives")
        check_no_leak(data, benign)


def _labels(data: Dataset, by: str) -> list[str]:
    return [str(getattr(e, by)) for e in data]


def _conversations(data: Dataset, found: OutOfFold) -> list[dict[str, Any]]:
    """Ids, categories and scores: what may be written down of a conversation."""
    scores: npt.NDArray[np.float64] = found.scores
    return [
        {"id": e.id, "category": e.category, "label": e.label, "score": round(float(s), 6)}
        for e, s in zip(data, scores, strict=True)
    ]


def _metadata(data: Dataset, config: ProbeConfig) -> dict[str, Any]:
    found = {
        "max_tokens": config.max_tokens,
        "data": data.provenance(),
        "text_digests": sorted(e.digest()[:16] for e in data),
    }
    return found if config.dictionary is None else {**found, "dictionary": config.dictionary}
