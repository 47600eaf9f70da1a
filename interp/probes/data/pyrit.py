"""Responses that people scored, templates and requests of PyRIT's wheel (MIT).

`many_shot_examples.json` is never read: it holds instructions for weapons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ....model.sources import PinnedWheel
from .archive import Archive, Wheel
from .example import Dataset, Example

WHEEL = PinnedWheel(
    requirement="pyrit==1.1.0",
    file_name="pyrit-1.1.0-py3-none-any.whl",
    n_bytes=10_612_299,
    sha256="84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
)

HARMFUL = 0.5
"""The mean of the human scores, in [0, 1], from which a response counts as harmful."""

_EVALS = "pyrit/datasets/scorer_evals/"
_TEMPLATES = "pyrit/datasets/jailbreak/templates/"
_BLANK = ("{{ prompt }}", "{{prompt}}")


@dataclass(frozen=True)
class Template:
    """A jailbreak template; its text holds "{prompt}" where a request goes.

    Attributes:
        id: Its path below the templates' folder, without the suffix.
        family: The folder that it is in, or its own name.
    """

    id: str
    family: str
    text: str = field(repr=False)


def harm() -> Dataset:
    """Returns responses of models, 1 where people on average scored them harmful; the group is the
    objective that was asked for, the category the kind of harm.

    Equal responses are one example, which pools their scores.
    """
    return _scored("pyrit-harm", _EVALS + "harm/")


def objective() -> Dataset:
    """Returns responses, 1 where people found the objective achieved; groups as in `harm`."""
    return _scored("pyrit-objective", _EVALS + "objective/")


def refusal(wheel: Wheel = WHEEL) -> Dataset:
    """Returns responses, 1 where people found that the model refused; the group is the request."""
    return _scored("pyrit-refusal", _EVALS + "refusal_scorer/", wheel)


def templates(wheel: Wheel = WHEEL) -> dict[str, list[str]]:
    """Returns the texts of `read_templates` by family."""
    families: dict[str, list[str]] = {}
    for template in read_templates(wheel):
        families.setdefault(template.family, []).append(template.text)
    return families


def read_templates(wheel: Wheel = WHEEL) -> list[Template]:
    """Returns the jailbreak templates with one place for a request and no other."""
    with Archive(wheel) as archive:
        return list(_templates(archive))


def _templates(archive: Archive) -> Iterator[Template]:
    for member in archive.members(_TEMPLATES, ".yaml"):
        found = archive.yaml(member)
        if list(found.get("parameters", ())) != ["prompt"]:
            continue
        text = str(found["value"])
        for blank in _BLANK:
            text = text.replace(blank, "{prompt}")
        path = PurePosixPath(member.removeprefix(_TEMPLATES))
        family = path.parts[0] if len(path.parts) > 1 else path.stem
        yield Template(str(path.with_suffix("")), family, text)


def advbench(archive: Archive) -> list[str]:
    """Returns AdvBench's requests, all harmful, from PyRIT's wheel."""
    found = archive.yaml("pyrit/datasets/seed_datasets/local/adv_bench.prompt")
    return [str(seed["value"]) for seed in found["seeds"]]


def _scored(name: str, folder: str, wheel: Wheel = WHEEL) -> Dataset:
    texts: dict[str, tuple[str, str, str]] = {}
    scores: dict[str, list[float]] = {}
    with Archive(wheel) as archive:
        digest = archive.sha256
        for member in archive.members(folder, ".csv"):
            stem = PurePosixPath(member).stem
            for row in archive.table(member):
                text = (row.get("assistant_response") or "").strip()
                found = [float(v) for k, v in row.items() if _is_score(k) and v]
                if not text or not found or row.get("data_type", "text") != "text":
                    continue
                group = " ".join((row.get("objective") or "").split())
                texts.setdefault(text, (group, row.get("harm_category") or stem, stem))
                scores.setdefault(text, []).extend(found)
    numbers = {group: i for i, group in enumerate(dict.fromkeys(t[0] for t in texts.values()))}
    examples = tuple(
        Example(
            id=f"{stem}-{i}",
            text=text,
            label=int(sum(scores[text]) / len(scores[text]) >= HARMFUL),
            group=f"objective-{numbers[group]}",
            category=_category(category),
            source=stem,
        )
        for i, (text, (group, category, stem)) in enumerate(texts.items())
    )
    return Dataset(name, examples, digest)


def _is_score(column: str | None) -> bool:
    return column is not None and column.startswith("human_score")


def _category(text: str) -> str:
    return text.strip().lower().replace(" ", "_").removesuffix("_multi_score")
