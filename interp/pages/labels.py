"""Labels of features: read from files, or asked of a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Labeller = Callable[[dict[str, Any]], str | None]
"""From a card (`cards.py`) to a label, or None where it has none to give."""

Labels = str | Path | Mapping[int, str] | Labeller | None
"""A file, labels by feature, or a function."""


def read_labels(path: Path) -> dict[int, str]:
    """Reads labels by feature.

    Takes what a page saves (one object a hook, of labels by feature), one such object alone, and
    Neuronpedia's export of explanations (a list of objects with `index` and `description`).

    Raises ValueError for anything else, naming the file.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, list):
            return {int(each["index"]): str(each["description"]) for each in found}
        if all(isinstance(value, dict) for value in found.values()):
            if len(found) != 1:
                raise ValueError(f"labels of {len(found)} hooks, one expected")
            (found,) = found.values()
        return {int(feature): str(text) for feature, text in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no labels: expected an object of texts by feature, or a list of objects with "
            f"index and description ({error})"
        ) from error


def labels_of(labels: Labels, cards: Iterable[dict[str, Any]]) -> dict[int, dict[str, str]]:
    """Returns labels by feature, each with where it comes from, for the cards that have one."""
    if labels is None:
        return {}
    if isinstance(labels, str | Path):
        found, source = read_labels(Path(labels)), f"from {Path(labels).name}"
    elif isinstance(labels, Mapping):
        found, source = dict(labels), "given"
    else:
        asked = {card["id"]: labels(card) for card in cards}
        found = {feature: text for feature, text in asked.items() if text}
        source = f"by {getattr(labels, '__name__', type(labels).__name__)}"
        return {f: {"text": text, "source": source} for f, text in found.items()}
    features = {card["id"] for card in cards}
    return {f: {"text": t, "source": source} for f, t in found.items() if f in features}
