"""Logs as JSON: bounded, and with a name and a line in every error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...model.sources.json_lines import json_lines, parse_json
from ...names import near_files
from .items import EvaluationError

MOST_BYTES = 4 << 30
"""The longest log that is read."""


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Returns a JSON object. Raises EvaluationError for anything else."""
    return _object(parse_json(data, where, EvaluationError), where)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the one JSON object of a file. Raises EvaluationError, and OSError."""
    _require_file(path)
    return parse_object(path.read_bytes(), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each line's place and object. Raises EvaluationError, and OSError."""
    _require_file(path)
    for where, value in json_lines(path, EvaluationError):
        yield where, _object(value, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file{near_files(path)}")
    if path.stat().st_size > MOST_BYTES:
        raise EvaluationError(f"{path}: longer than {MOST_BYTES >> 30} GiB")
