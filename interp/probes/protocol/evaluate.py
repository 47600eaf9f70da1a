"""A probe that is finished, judged on other conversations at its frozen threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ....model.transformer import HookedTransformer
from ...dictionaries import load_dictionary
from ..data import Dataset, check_unseen
from ..page import write_report
from ..probe import Probe
from ..reading import MAX_TOKENS, Progress
from .alarms import afterwards, alarm_figures
from .judging import judge
from .scoring import scorable, score_texts


def evaluate_probe(
    model: HookedTransformer,
    probe: Probe,
    data: Dataset,
    *,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Returns the figures of a probe on labelled conversations it was not trained on.

    Nothing is fitted: the threshold is the probe's own, its probabilities are the score's. Data of
    one class gets alarms alone.

    Raises:
        LeakError: conversations that the probe was trained on, by the digests it carries.
        ProbeFileError, ValueError: a probe without a threshold that is a number.
    """
    check_unseen(probe.metadata_.get("text_digests", ()), data)
    name = probe.metadata_.get("dictionary")
    max_tokens = int(probe.metadata_.get("max_tokens", MAX_TOKENS))
    data = scorable(model, data, max_tokens, probe.skip_first)
    running = score_texts(
        model,
        data,
        [probe],
        max_tokens,
        dictionary=None if name is None else load_dictionary(name),
        progress=progress,
    )[0]
    scores, y = np.array([float(r[-1]) for r in running]), data.y
    report: dict[str, Any] = {"data": data.provenance(), "threshold": probe.threshold_}
    if 0 < y.sum() < len(y):
        report |= judge(scores, y, data.groups, {})
    report["alarms"] = [
        {"target_fpr": probe.report_.get("target_fpr"),
         **alarm_figures(running, y, probe.threshold_),
         "afterwards": afterwards(running, y, probe.threshold_)}
    ]  # fmt: skip
    if output is not None:
        conversations = [
            {"id": e.id, "category": e.category, "label": e.label, "score": round(float(s), 6)}
            for e, s in zip(data, scores, strict=True)
        ]
        write_report(Path(output), {**report, "conversations": conversations})
    return report
