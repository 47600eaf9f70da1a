"""Responses that people scored, templates and requests of PyRIT's wheel (MIT).

`many_shot_examples.json` is never read: it holds instructions for weapons.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ....model.sources import PinnedWheel
from .archive import Archive
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


def harm() -> Dataset:
    """Returns responses of models, 1 where people on average scored them harmful; the group is the
    objective that was asked for, the category the kind of harm.

    Equal responses are one example, which pools their scores.
    """
    return _scored("pyrit-harm", _EVALS + "harm/")


def objective() -> Dataset:
    """Returns responses, 1 where people found the objective achieved; groups as in `harm`."""
    return _scored("pyrit-objective", _EVALS + "objective/")


def refusal() -> Dataset:
    """Returns responses, 1 where people found that the model refused; the group is the request."""
    return _scored("pyrit-refusal", _EVALS + "refusal_scorer/")


def templates() -> dict[str, list[str]]:
    """Returns the jailbreak templates with one place for a request, by family: the folder they
    are in, or their own name. A template holds "{prompt}" where the request goes."""
    families: dict[str, list[str]] = {}
    with Archive(WHEEL) as archive:
        for member in archive.members(_TEMPLATES, ".yaml"):
            if "many_shot" in member:
                continue
            found = archive.yaml(member)
            if list(found.get("parameters", ())) != ["prompt"]:
                continue
            text = str(found["value"])
            for blank in _BLANK:
                text = text.replace(blank, "{prompt}")
            path = PurePosixPath(member.removeprefix(_TEMPLATES))
            family = path.parts[0] if len(path.parts) > 1 else path.stem
            families.setdefault(family, []).append(text)
    return families


def advbench() -> list[str]:
    """Returns AdvBench's requests, all harmful."""
    with Archive(WHEEL) as archive:
        found = archive.yaml("pyrit/datasets/seed_datasets/local/adv_bench.prompt")
    return [str(seed["value"]) for seed in found["seeds"]]


def _scored(name: str, folder: str) -> Dataset:
    texts: dict[str, tuple[str, str, str]] = {}
    scores: dict[str, list[float]] = {}
    with Archive(WHEEL) as archive:
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
    return Dataset(name, examples, WHEEL.sha256)


def _is_score(column: str | None) -> bool:
    return column is not None and column.startswith("human_score")


def _category(text: str) -> str:
    return text.strip().lower().replace(" ", "_").removesuffix("_multi_score")
