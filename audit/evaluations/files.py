"""Logs as JSON: bounded, and with a name and a line in every error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .items import EvaluationError

MOST_BYTES = 4 << 30
"""The longest log that is read; one item of it is at most MOST_LINE long."""

MOST_LINE = 64 << 20


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Returns a JSON object. Raises EvaluationError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Returns the one JSON object of a file. Raises EvaluationError, and OSError."""
    with _opened(path) as file:
        return parse_object(file.read(MOST_BYTES), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each line's place and object. Raises EvaluationError, and OSError."""
    with _opened(path) as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > MOST_LINE:
                raise EvaluationError(f"{where}: longer than {MOST_LINE >> 20} MiB")
            if line.strip():
                yield where, parse_object(line, where)


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file")
    if path.stat().st_size > MOST_BYTES:
        raise EvaluationError(f"{path}: longer than {MOST_BYTES >> 30} GiB")
    return path.open("rb")
