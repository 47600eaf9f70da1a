"""JSONL files that grow a row a step, and go on where a process was killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..model.weights.atomic import write_atomically
from .draws import digest_of

Row = dict[str, Any]
T = TypeVar("T")


class RowFile:
    """The rows of one run. Each row names the run under "run", a digest of all that decides it.

    Attributes:
        rows: Those that are there, in their order.
    """

    def __init__(self, path: str | Path, run: str, *, ungated: bool = False) -> None:
        """Reads the file, if there is one, and drops a last row that was cut off.

        `ungated` is written into every row, and is part of what decides the run.

        Raises ValueError for rows of another run, and for a line in the middle that is damaged.
        """
        self._path = Path(path)
        self._marks = (
            {"run": digest_of([run, "ungated"]), "ungated": True} if ungated else {"run": run}
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = self._path.read_bytes() if self._path.exists() else b""
        whole, _, cut = data.rpartition(b"\n")
        self.rows = [self._read(line, n) for n, line in enumerate(whole.split(b"\n"), 1) if line]
        if cut:
            with write_atomically(self._path) as scratch:
                scratch.write_bytes(whole + b"\n" if whole else b"")

    def append(self, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
        """Writes rows behind those that are there, and returns them as they will be read."""
        lines = [json.dumps({**row, **self._marks}, ensure_ascii=False) for row in rows]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        added: list[Row] = [json.loads(line) for line in lines]
        self.rows += added
        return added

    def fill(
        self, items: Sequence[T], size: int, make: Callable[[Sequence[T]], Iterable[Row]]
    ) -> list[Row]:
        """Returns a row for each item, `size` of them made and written at a time; those that are
        there are not made again."""
        for first in range(len(self.rows), len(items), size):
            self.append(make(items[first : first + size]))
        return self.rows

    def _read(self, line: bytes, number: int) -> Row:
        where = f"{self._path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where}: damaged ({error}); remove the file to begin anew"
            ) from error
        if not isinstance(row, dict) or row.get("run") != self._marks["run"]:
            raise ValueError(
                f"{where}: of a run with another model, constitution, data, seed or setting; name "
                "another output, or remove the file to begin anew"
            )
        return row
