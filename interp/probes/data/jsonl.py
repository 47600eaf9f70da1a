"""A user's own data: a JSONL file, one object a line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ....names import near_files
from .example import DataError, Dataset, Example

_TEXTS = ("category", "source")


def read_jsonl(path: Path) -> Dataset:
    """Reads objects with "text" and "label" (0, 1, true or false), and, where they are there, "id",
    "group" (the id by default), "category" and "source".

    Raises FileNotFoundError, and DataError naming the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}{near_files(path)}")
    content = path.read_bytes()
    examples = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            where = f"{path.name}, line {number}"
            examples.append(_example(_parsed(line, where), where, f"line-{number}"))
    if not examples:
        raise DataError(f"{path.name} holds no examples")
    return Dataset(path.stem, tuple(examples), hashlib.sha256(content).hexdigest())


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        # What json or the decoder says quotes the line, which reports must not.
        raise DataError(f"{where}: not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: expected an object")
    return found


def _example(found: dict[str, Any], where: str, default_id: str) -> Example:
    text, label = found.get("text"), found.get("label")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where}: expected a "text" that is not empty')
    if label not in (0, 1):
        raise DataError(f'{where}: expected a "label" of 0 or 1')
    id = str(found.get("id", default_id))
    for name in _TEXTS:
        if not isinstance(found.get(name, ""), str):
            raise DataError(f'{where}: expected a string as "{name}"')
    return Example(
        id,
        text,
        int(label),
        str(found.get("group", id)),
        found.get("category", ""),
        found.get("source", ""),
    )
