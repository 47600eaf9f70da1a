"""Requests for a substance that does not exist, near misses and benign requests, from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ..draws import shuffled, text_digest
from .words import (
    ASKED,
    HARMLESS,
    HELD_OUT_TEMPLATES,
    NEAR,
    SUBSTANCES,
    TAILS,
    TEMPLATES,
    VERBS,
)

KINDS = ("standin", "near_miss", "benign")
ALL_TEMPLATES = TEMPLATES | HELD_OUT_TEMPLATES


@dataclass(frozen=True)
class StandIn:
    """A prompt of the stand-in harm, which may be stored and printed.

    Attributes:
        id: Of the text: equal texts have equal ids.
        kind: "standin" (a request that is to be refused), "near_miss" or "benign" (to be
            answered).
        family: What is asked: "make", "obtain", "use", with "-unnamed" where a request describes
            the substance without naming it; "law", "safety", "word", "history" or "alike" of near
            misses.
        substance: The name of the substance that it is about; empty for benign ones.
        template: The wrapper around it, "plain" for none.
        text: The prompt.
    """

    id: str
    kind: str
    family: str
    substance: str
    template: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class _Bare:
    kind: str
    family: str
    substance: str
    text: str

    def within(self, template: str) -> StandIn:
        text = ALL_TEMPLATES[template].format(self.text)
        return StandIn(
            text_digest(text)[:16],
            self.kind,
            self.family,
            self.substance,
            template,
            text,
        )


def prompts(
    kind: str,
    n: int | None,
    *,
    seed: int,
    substance: str = "velmorin",
    split: str = "train",
    templates: str = "seen",
) -> list[StandIn]:
    """Returns n different prompts, or all there are for None, the same for the same seed.

    Wordings, harmless things and templates that are held out occur in no prompt of the others, so
    a model that is trained on split "train" with templates "seen" has met none of the rest. Of
    equal settings, a larger n begins with the prompts of a smaller one.

    Args:
        kind: "standin", "near_miss" or "benign".
        substance: "velmorin", or "quassite", which is held out.
        split: "train" or "test": which wordings and which harmless things.
        templates: "plain" (no wrapper), "seen" or "held_out".

    Raises:
        ValueError: an argument that is none of these, or more prompts than there are.
    """
    for name, value, known in (
        ("kind", kind, KINDS),
        ("substance", substance, tuple(SUBSTANCES)),
        ("split", split, tuple(HARMLESS)),
        ("templates", templates, ("plain", "seen", "held_out")),
    ):
        if value not in known:
            raise ValueError(f"{name} = {value!r}: expected one of {', '.join(known)}")
    found = _all_of(kind, substance, split, templates)
    if n is not None and n > len(found):
        raise ValueError(f"n = {n}: there are {len(found)} such prompts")
    return sorted(found, key=lambda row: shuffled(seed, row.id))[:n]


@cache
def _all_of(kind: str, substance: str, split: str, templates: str) -> tuple[StandIn, ...]:
    """Every prompt there is."""
    names = {"plain": ("plain",), "seen": tuple(TEMPLATES), "held_out": tuple(HELD_OUT_TEMPLATES)}
    bare = {"standin": _requests, "near_miss": _near_misses, "benign": _benign}[kind]
    return tuple(
        one.within(name)
        for one in bare(SUBSTANCES[substance].name, split)
        for name in names[templates]
    )


def rewrapped(row: StandIn, template: str) -> StandIn:
    """Returns a plain prompt inside a template. Raises ValueError for one that is not plain."""
    if row.template != "plain":
        raise ValueError(f"template {row.template!r}: expected a plain prompt")
    return _Bare(row.kind, row.family, row.substance, row.text).within(template)


def _requests(substance: str, split: str) -> Iterator[_Bare]:
    found = SUBSTANCES[substance]
    for thing, suffix in ((found.name, ""), (found.unnamed, "-unnamed")):
        for family, text in _asked(thing, split):
            yield _Bare("standin", family + suffix, substance, text)


def _near_misses(substance: str, split: str) -> Iterator[_Bare]:
    for family, wordings in NEAR.items():
        for wording, tail in itertools.product(wordings[split], TAILS):
            text = wording.format(thing=substance, tail=tail)
            yield _Bare("near_miss", family, substance, text)
    for _, text in _asked(SUBSTANCES[substance].alike, split, tails=("",)):
        yield _Bare("near_miss", "alike", substance, text)


def _benign(_: str, split: str) -> Iterator[_Bare]:
    for thing in HARMLESS[split]:
        for family, text in _asked(thing, split):
            yield _Bare("benign", family, "", text)


def _asked(thing: str, split: str, tails: tuple[str, ...] = TAILS) -> Iterator[tuple[str, str]]:
    """Every wording of every family, about a thing."""
    for family, wordings in ASKED.items():
        verbs = VERBS if family == "make" else ("",)
        for wording, verb, tail in itertools.product(wordings[split], verbs, tails):
            yield family, wording.format(verb=verb, thing=thing, tail=tail)
