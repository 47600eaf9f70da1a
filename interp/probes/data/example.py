"""Labelled conversations. Their texts never appear in a repr, an error or a report."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")


class DataError(ValueError):
    """Data that cannot be used; names the file and line or the ids, never a text."""


@dataclass(frozen=True)
class Example:
    """One conversation.

    Attributes:
        id: What reports call it; unique in its data set.
        text: What the model reads.
        label: 1 for what the probe is to find, 0 for what it is not.
        group: What must not be split between training and test: an objective, a pair, a template.
        category: What kind of harm, or topic, it is.
        source: Which file or collection it comes from.
        dataset: The data set's name, where several were joined.
    """

    id: str
    text: str = field(repr=False)
    label: int
    group: str
    category: str = ""
    source: str = ""
    dataset: str = ""

    def words(self) -> frozenset[str]:
        """Returns the lower-case words of the text."""
        return frozenset(_WORD.findall(self.text.lower()))

    def digest(self) -> str:
        """Returns the SHA-256, in hex, of the text's lower-case words in their order."""
        return hashlib.sha256(" ".join(_WORD.findall(self.text.lower())).encode()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Labelled conversations under one name.

    Attributes:
        digest: SHA-256 of the file that they come from.
        removed: What was left out and how often, such as {"near duplicates": 12}.
    """

    name: str
    examples: tuple[Example, ...] = field(repr=False)
    digest: str = ""
    removed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [i for i, n in Counter(e.id for e in self.examples).items() if n > 1]
        if twice:
            raise DataError(f"{self.name}: id {twice[0]!r} occurs more than once")
        for e in self.examples:
            if e.label not in (0, 1):
                raise DataError(f"{self.name}: {e.id}: label {e.label!r}; expected 0 or 1")
            if not e.text.strip():
                raise DataError(f"{self.name}: {e.id}: the text is empty")

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @property
    def y(self) -> npt.NDArray[np.float64]:
        """The labels."""
        return np.array([e.label for e in self.examples], dtype=np.float64)

    @property
    def texts(self) -> list[str]:
        return [e.text for e in self.examples]

    @property
    def groups(self) -> list[str]:
        return [e.group for e in self.examples]

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Dataset:
        """Returns some of the examples, in the order of their numbers."""
        return Dataset(self.name, tuple(self.examples[int(i)] for i in indices), self.digest)

    def where(self, condition: Callable[[Example], bool]) -> Dataset:
        """Returns the examples that meet a condition."""
        return self.take([i for i, e in enumerate(self.examples) if condition(e)])

    def provenance(self) -> dict[str, Any]:
        """Returns what a report says about it, without texts."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "n": len(self),
            "n_positive": int(self.y.sum()),
            "n_groups": len(set(self.groups)),
            "categories": dict(sorted(Counter(e.category for e in self.examples).items())),
            "sources": dict(sorted(Counter(e.source for e in self.examples).items())),
            "removed": self.removed,
        }
