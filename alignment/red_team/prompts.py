"""Prompts of an attack, by id. A sensitive one's text stays in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...interp.probes.data import DataError, Dataset, Example, LeakError, check_no_leak
from .. import standin
from ..draws import digest_of, shuffled, text_digest

Kind = Literal["harmful", "near_miss", "benign"]
KINDS: tuple[Kind, ...] = ("harmful", "near_miss", "benign")
Row = Literal["standin", "sensitive"]


@dataclass(frozen=True)
class Prompt:
    """One request.

    Attributes:
        id: The name that rows and reports have for it.
        kind: "harmful" is to be refused; "near_miss" sounds like it and is to be answered, as is
            "benign".
        row: "standin" may be stored and printed; of a "sensitive" one only id, digest and scores.
        cluster: Prompts of one cluster may depend on each other.
    """

    id: str
    text: str = field(repr=False)
    kind: Kind
    row: Row
    cluster: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return text_digest(self.text)


@dataclass(frozen=True)
class PromptSet:
    """Prompts under one name. Raises DataError for ids that occur twice.

    Attributes:
        digest: Of ids, kinds and texts.
        removed: Rows that were left out, by the reason.
    """

    name: str
    prompts: tuple[Prompt, ...] = field(repr=False)
    removed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [i for i, n in Counter(p.id for p in self.prompts).items() if n > 1]
        if twice:
            raise DataError(f"{self.name}: id {twice[0]!r} occurs more than once")

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @property
    def digest(self) -> str:
        return digest_of([[p.id, p.kind, p.row, p.digest] for p in self.prompts])

    def of(self, kind: Kind) -> tuple[Prompt, ...]:
        """Returns the prompts of a kind."""
        return tuple(p for p in self.prompts if p.kind == kind)

    def draw(self, n: int, seed: int) -> PromptSet:
        """Returns at most n of each kind, the same for the same seed whatever else is there."""
        drawn = {
            prompt.id
            for kind in KINDS
            for prompt in sorted(self.of(kind), key=lambda p: shuffled(seed, p.id))[:n]
        }
        return replace(self, prompts=tuple(p for p in self.prompts if p.id in drawn))

    def dataset(self) -> Dataset:
        """Returns them as labelled conversations, 1 for harmful ones."""
        rows = [
            (p.id, p.text, int(p.kind == "harmful"), p.cluster, p.kind, p.row) for p in self.prompts
        ]
        return dataset_of(self.name, rows)

    def provenance(self) -> dict[str, Any]:
        """Returns what a report says about them, without texts."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "kinds": {kind: len(self.of(kind)) for kind in KINDS},
            "removed": self.removed,
        }


def standin_prompts(n: int, *, seed: int, substance: str = "velmorin") -> PromptSet:
    """Returns n requests for the stand-in substance, near misses and benign ones each, or as many
    as there are, in wordings that no training prompt has."""
    found = []
    for kind, ours in (("standin", "harmful"), ("near_miss", "near_miss"), ("benign", "benign")):
        rows = standin.prompts(
            kind, None, seed=seed, substance=substance, split="test", templates="plain"
        )
        found += [
            Prompt(row.id, row.text, ours, "standin", row.id)  # type: ignore[arg-type]
            for row in rows[:n]
        ]
    return PromptSet(f"standin-{substance}", tuple(found))


def check_disjoint(train: PromptSet, test: PromptSet) -> None:
    """Raises LeakError where a prompt of `test` was trained on, or resembles one that was.

    Stand-in prompts resemble each other by construction: of these, equal texts alone count.
    """
    known = {p.digest for p in train}
    equal = [p.id for p in test if p.digest in known]
    if equal:
        raise LeakError(
            f"{len(equal)} prompts of {test.name} are in {train.name}, {equal[0]!r} among them"
        )
    sensitive = [replace(s, prompts=_sensitive(s)) for s in (train, test)]
    if all(len(s) for s in sensitive):
        check_no_leak(sensitive[0].dataset(), sensitive[1].dataset())


def dataset_of(name: str, rows: Sequence[tuple[str, str, int, str, str, str]]) -> Dataset:
    """Returns rows of id, text, label, group, category and source as a data set."""
    return Dataset(name, tuple(Example(*row) for row in rows))


def _sensitive(prompts: PromptSet) -> tuple[Prompt, ...]:
    return tuple(p for p in prompts if p.row == "sensitive")
