"""JSONL files: a value a line, each with its place for whoever finds something wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_LINE = 64 << 20
"""The longest line that is read."""


def json_lines(path: str | Path, error: type[ValueError] = ValueError) -> Iterator[tuple[str, Any]]:
    """Yields the place of each line that is not blank, "FILE, line 3", and its value.

    Lines end at newlines alone: U+2028 and its kin may stand inside a JSON string.

    Raises `error` for a line that is too long or no JSON in UTF-8, OSError for a file that cannot
    be read.
    """
    with Path(path).open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > MOST_LINE:
                raise error(f"{where}: longer than {MOST_LINE >> 20} MiB")
            if line.strip():
                yield where, parse_json(line, where, error)


def parse_json(data: bytes, where: str, error: type[ValueError] = ValueError) -> Any:
    """Returns what JSON in UTF-8 says. Raises `error` naming the place for anything else."""
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as reason:
        raise error(f"{where}: not UTF-8 at byte {reason.start}") from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: not JSON: {reason}") from reason
