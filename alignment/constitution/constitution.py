"""A constitution as data: requests for critiques and revisions, and instructions to compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ...model.text.tokenizer import Tokenizer
from .layouts import read_layout
from .plain_text import checked_text, require_no_special_tokens

P = TypeVar("P", "Critique", "Comparison")

MOST_PRINCIPLES = 512
SHIPPED = ("default", "standin", "unrelated")


@dataclass(frozen=True)
class Critique:
    """Two requests that belong together.

    Attributes:
        request: Asks for a critique of the last answer.
        revision: Asks to write it again.
    """

    name: str
    request: str
    revision: str


@dataclass(frozen=True)
class Comparison:
    """An instruction to choose one of two answers."""

    name: str
    instruction: str


@dataclass(frozen=True)
class Example:
    """A conversation that shows what a critique and a revision are."""

    prompt: str
    answer: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


@dataclass(frozen=True)
class Constitution:
    """Principles, in two lists as Bai et al. 2022 have them.

    Attributes:
        critiques: Pairs of requests, of which each step of a revision draws one.
        comparisons: Instructions, of which each label draws one.
        examples: Shown before critiques and revisions; those that come with bitlens where a file
            has none.
    """

    critiques: tuple[Critique, ...]
    comparisons: tuple[Comparison, ...]
    examples: tuple[Example, ...]

    @classmethod
    def load(cls, path: str | Path = "default") -> Constitution:
        """Reads a constitution.

        Args:
            path: A TOML file; a JSON file in one of the two layouts of Anthropic's repository
                ConstitutionalHarmlessnessPaper, or a folder with both; or "default", "standin"
                or "unrelated", which come with bitlens.

        Raises ValueError naming place and reason for a file without principles, texts that are
        empty, too long, or could open a turn of a conversation, and names that are there twice.
        OSError for a file that cannot be read.
        """
        source = Path(path)
        if str(path) in SHIPPED:
            source = Path(str(files(__package__).joinpath(f"{path}.toml")))
        found = read_layout(source)
        if not found.get("example") and str(path) != "default":
            found["example"] = read_layout(Path(str(files(__package__) / "default.toml")))[
                "example"
            ]
        return cls(
            _principles(Critique, found, "critique", source),
            _principles(Comparison, found, "comparison", source),
            _principles(Example, found, "example", source),
        )

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of everything in it, which every artefact carries."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def edited(self, name: str, **texts: str) -> Constitution:
        """Returns a constitution with other texts in every principle of that name.

            constitution.edited("harm", instruction="Which answer hurts nobody?")

        Raises ValueError for a name or a text that it does not have.
        """
        edited = dataclasses.replace(
            self,
            critiques=_edited(self.critiques, name, texts),
            comparisons=_edited(self.comparisons, name, texts),
        )
        if edited == self:
            raise ValueError(f"{name}: no principle has this name and other texts of these")
        return edited

    def require_plain(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError for a text that spells one of a model's special tokens."""
        for kind in ("critiques", "comparisons", "examples"):
            for number, one in enumerate(getattr(self, kind), start=1):
                for field, text in asdict(one).items():
                    require_no_special_tokens(text, tokenizer, f"{kind} {number}, {field}")


def _edited(principles: tuple[P, ...], name: str, texts: dict[str, str]) -> tuple[P, ...]:
    """The same, with the texts that a principle of this name has a field for."""
    return tuple(
        dataclasses.replace(
            one,
            **{f: checked_text(t, f"{name}, {f}") for f, t in texts.items() if hasattr(one, f)},
        )
        if one.name == name
        else one
        for one in principles
    )


def _principles(kind: type[Any], found: dict[str, Any], key: str, source: Path) -> tuple[Any, ...]:
    rows = found.get(key, [])
    if not isinstance(rows, list) or len(rows) > MOST_PRINCIPLES:
        raise ValueError(f"{source}, {key}: expected a list of at most {MOST_PRINCIPLES}")
    made = []
    wanted = [field.name for field in dataclasses.fields(kind)]
    for number, row in enumerate(rows, start=1):
        where = f"{source}, {key} {number}"
        if not isinstance(row, dict) or set(row) != set(wanted):
            raise ValueError(f"{where}: expected {', '.join(wanted)}")
        made.append(kind(**{n: checked_text(row[n], f"{where}, {n}") for n in wanted}))
    names = [getattr(one, "name", None) for one in made]
    if twice := sorted({n for n in names if n is not None and names.count(n) > 1}):
        raise ValueError(f"{source}, {key}: {twice[0]!r} is there twice")
    return tuple(made)
