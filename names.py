"""Names that users type: the models' aliases, and what a mistyped name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

ALIASES = ("smollm2-135m-instruct", "gemma-3-270m")
"""What `model/sources/alias.py` has files for."""

SOURCES = (
    "pass a .gguf file, a Hugging Face model directory, a model's id on the Hugging Face hub "
    f"(org/name, or org/name:Q4_K_M for a GGUF file in it), or an alias ({', '.join(ALIASES)})"
)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x' or 'y'?" with the nearest names, "" where none comes near."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(by_lower[other]) for other in near)}?" if near else ""


def near_files(path: Path) -> str:
    """Returns the same for a file that is not there, from the names in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return near_files(folder) if folder != folder.parent else ""
    prefix = "" if str(folder) == "." else f"{folder}/"
    return did_you_mean(str(path), (f"{prefix}{other.name}" for other in folder.iterdir()))


def no_such_model(source: str) -> FileNotFoundError:
    """The error for a source that is nothing: what was meant, and what a source can be."""
    near = did_you_mean(source, ALIASES) or near_files(Path(source).expanduser())
    return FileNotFoundError(f"no such model: {source!s}{near}; {SOURCES}")


def may_be_on_the_hub(source: str) -> bool:
    """Whether a name that is nothing here has the form of an id on the hub."""
    return source.count("/") == 1 and not source.startswith(("/", ".", "~"))
