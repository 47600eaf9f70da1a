"""Members of wheels, read from the zip: nothing of a wheel is imported or unpickled."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ....model.sources import PinnedWheel, fetch_wheel
from .example import DataError

READABLE = (".csv", ".json", ".jsonl", ".txt", ".yaml", ".prompt")

NEVER_READ = "many_shot"
"""A part of the paths of members that stay unopened: PyRIT's file holds instructions for
weapons."""

MOST_BYTES = 64 << 20
"""The largest member that is read."""

Wheel = PinnedWheel | Path
"""A wheel that is fetched, or a user's own file."""

_LONGEST_FIELD = 1 << 24


class Archive:
    """An open wheel. A context manager; opening fetches a pinned wheel that is not in the cache.

    Attributes:
        sha256: Of the wheel.

    Raises FetchError where it cannot be fetched, or is not the one that is pinned; OSError and
    DataError for a user's file that cannot be opened, or is no wheel.
    """

    def __init__(self, wheel: Wheel) -> None:
        path = fetch_wheel(wheel) if isinstance(wheel, PinnedWheel) else wheel
        self._name = path.name
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise DataError(f"{path.name}: no wheel (a zip archive), or a damaged one") from None
        if isinstance(wheel, PinnedWheel):
            self.sha256 = wheel.sha256
        else:
            with path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def members(self, folder: str, suffix: str) -> list[str]:
        """Returns the files below a folder that may be read, by name. Raises DataError for none."""
        names = self._zip.namelist()
        found = sorted(n for n in names if n.startswith(folder) and n.endswith(suffix))
        found = [name for name in found if NEVER_READ not in name]
        if not found:
            raise self._lacking(f"{folder}*{suffix}")
        return found

    def text(self, member: str) -> str:
        """Returns a member's text.

        Raises DataError for a kind of file that is never read, and for one that the wheel lacks,
        that is damaged, or larger than `MOST_BYTES`.
        """
        if PurePosixPath(member).suffix not in READABLE:
            raise DataError(f"{member}: only text files are read, never a pickle or code")
        if NEVER_READ in member:
            raise DataError(f"{member}: is never read, as it holds instructions that do harm")
        try:
            size = self._zip.getinfo(member).file_size
        except KeyError:
            raise self._lacking(member) from None
        if size > MOST_BYTES:
            raise DataError(f"{self._name}: {member} has {size:,} bytes; at most {MOST_BYTES:,}")
        try:
            return self._zip.read(member).decode("utf-8", errors="replace")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
            raise DataError(f"{self._name}: {member} is damaged") from None

    def _lacking(self, member: str) -> DataError:
        return DataError(f"{self._name} lacks {member}: another version, or a damaged download")

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
