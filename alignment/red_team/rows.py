"""The rows of a run: a JSONL file that a run goes on from, wherever it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...model.weights.atomic import write_atomically

TEXTS = ("prompt", "answer")
"""Fields that a sensitive row has not."""


class RowFile:
    """A first line that says of which run the rows are, then a row a line, in the run's order."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """`identity`: all that decides the rows, as JSON holds it."""
        self._path = path
        self._identity = json.loads(json.dumps(dict(identity)))

    def begin(self) -> list[dict[str, Any]]:
        """Returns the whole rows that are there, and drops a last one that was cut off.

        Raises ValueError for a file of another run, or one that is damaged before its last line.
        """
        rows: list[dict[str, Any]] = []
        if self._path.exists():
            lines = self._path.read_bytes().split(b"\n")
            whole = [_parsed(line, self._path, i + 1) for i, line in enumerate(lines[:-1])]
            if whole:
                self._require_same_run(whole[0].get("run"))
                rows = whole[1:]
        with write_atomically(self._path) as scratch:
            scratch.write_text(_lines([{"run": self._identity}, *rows]), encoding="utf-8")
        return rows

    def _require_same_run(self, found: Any) -> None:
        known = found if isinstance(found, dict) else {}
        differs = [name for name, value in self._identity.items() if known.get(name) != value]
        if differs:
            raise ValueError(
                f"{self._path} is of another run ({', '.join(differs)} differ): name another folder"
            )

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Writes rows, which are on the disk once this returns.

        Raises ValueError for a sensitive row with a text: it is not written.
        """
        rows = list(rows)
        for row in rows:
            if row["row"] != "standin" and not set(TEXTS).isdisjoint(row):
                raise ValueError(f"row {row['id']!r} is sensitive: its text is not written")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))
            file.flush()
            os.fsync(file.fileno())


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path}, line {number}: damaged; remove the file to begin again")
    return found
