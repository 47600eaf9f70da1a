"""JSON objects out of a checkpoint's directory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..weights.checkpoint import CheckpointError

MAX_BYTES = 256 << 20
"""Ten times the largest tokenizer.json in use; what is longer is not read."""


def read_text(path: Path) -> str:
    """A UTF-8 file as it is.

    Raises:
        CheckpointError: it is no such file, or too long.
        OSError: it cannot be read.
    """
    # A pipe or a device, behind a link, might never end.
    if not path.is_file():
        raise CheckpointError(f"{path}: not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{path}: longer than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8: {error}") from error


def parse_object(text: str, path: Path) -> dict[str, Any]:
    """Parses one JSON object in which no name appears twice.

    Raises:
        CheckpointError: the text is something else.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object; raises as `read_text` and `parse_object` do."""
    return parse_object(read_text(path), path)


def read_object_if_there(path: Path) -> dict[str, Any]:
    """Reads an object; an absent file is an empty one."""
    return read_object(path) if path.exists() else {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two values of one name they take."""
    named = dict(pairs)
    if len(named) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice!r} appears twice")
    return named
