"""Templates around requests, by id: the stand-in's, and PyRIT's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...interp.probes.data import DataError, pyrit
from .. import standin
from ..draws import shuffled, text_digest
from .prompts import Prompt, Row

PLACE = "{prompt}"


@dataclass(frozen=True)
class Template:
    """A wrapper; its text holds "{prompt}" where the request goes.

    Attributes:
        row: "sensitive" makes every prompt inside it so.
    """

    id: str
    text: str = field(repr=False)
    row: Row

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return text_digest(self.text)

    def around(self, prompt: Prompt) -> str:
        """Returns the prompt's text inside it."""
        return self.text.replace(PLACE, prompt.text)


PLAIN = Template("plain", PLACE, "standin")
"""No template."""


def open_templates(source: str, n: int, seed: int, *, wheel: Path | None = None) -> list[Template]:
    """Returns at most n templates of a source, the same for the same seed.

    Args:
        source: "none", "standin" (the wrappers that no training prompt has), "standin-seen", or
            "pyrit": its 655 wrappers, less those with a second place to fill.
        wheel: The user's own file of PyRIT's wheel.

    Raises:
        FileNotFoundError: no such source.
        DataError: a wheel that lacks its files.
        FetchError: a wheel that is not in the cache and cannot be fetched.
        RuntimeError: PyRIT's templates are YAML, and PyYAML is not installed.
    """
    if source == "none":
        return []
    if source == "pyrit":
        rows = pyrit.read_templates() if wheel is None else pyrit.read_templates(wheel)
        found = [Template(r.id, r.text, "sensitive") for r in rows if r.text.count(PLACE) == 1]
    elif source in ("standin", "standin-seen"):
        words = standin.HELD_OUT_TEMPLATES if source == "standin" else standin.TEMPLATES
        found = [
            Template(name, text.replace("{}", PLACE), "standin")
            for name, text in words.items()
            if name != PLAIN.id
        ]
    else:
        raise FileNotFoundError(f"templates: {source}: expected none, standin, standin-seen, pyrit")
    if not found:
        raise DataError(f"templates: {source} holds none")
    return sorted(found, key=lambda t: shuffled(seed, t.id))[:n]
