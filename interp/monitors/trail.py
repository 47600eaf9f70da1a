"""The findings of monitors, as lines of JSON that a killed process cannot spoil."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._core import numerics_version
from ...model.generation import GenerateOutput
from ...version import __version__

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class AuditTrail:
    """An append-only record of watched generations: ids, digests, scores and versions, no text.

    One line a row of a generation. Every line is written by one call and synced to the disk, so a
    killed process loses the line it was writing at most; `read_trail` passes over a broken last
    line, and the next `append` removes it.

    Attributes:
        path: The file; when it exceeds `max_bytes` it becomes PATH.1, PATH.1 becomes PATH.2 ...
        keep: Older files to keep.
        with_text: Whether the new text is written, too.
    """

    path: Path
    max_bytes: int = MAX_BYTES
    keep: int = 4
    with_text: bool = False

    def append(self, model: Any, output: GenerateOutput, request_id: str) -> None:
        """Writes a line for each row of a generation.

        Raises OSError where it cannot be written.
        """
        lines = [
            json.dumps(self._line(model, output, request_id, row), sort_keys=True, allow_nan=False)
            for row in range(len(output.n_new))
        ]
        data = "".join(line + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_broken_end(self.path)
        if self.path.exists() and self.path.stat().st_size + len(data) > self.max_bytes:
            self._rotate()
        with self.path.open("ab", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    def _line(
        self, model: Any, output: GenerateOutput, request_id: str, row: int
    ) -> dict[str, Any]:
        ids = output.tokens[row][output.attention_mask[row] == 1]
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": request_id,
            "row": row,
            "model_fingerprint": model.fingerprint(),
            "policy": model.ops.policy.name,
            "version": __version__,
            "numerics_version": numerics_version,
            "tokens_sha256": hashlib.sha256(ids.numpy().tobytes()).hexdigest(),
            "n_tokens": len(ids),
            "n_new": output.n_new[row],
            "finish_reason": output.finish_reason[row],
            "scores": {name: _last(x[row].tolist()) for name, x in output.scores.items()},
            "alarms": [alarm.to_dict() for alarm in output.alarms if alarm.row == row],
        }
        return line | ({"text": output.text[row]} if self.with_text and output.text else {})

    def _rotate(self) -> None:
        for n in range(self.keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{n}")
            newer = self.path if n == 1 else self.path.with_name(f"{self.path.name}.{n - 1}")
            if newer.exists():
                newer.replace(older)


def read_trail(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a trail; a last line that a killed process left broken is passed over.

    Raises ValueError for a broken line elsewhere, FileNotFoundError for no file.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield found


def _drop_broken_end(path: Path) -> None:
    """Cuts off what stands behind the last whole line."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        data = path.read_bytes()
        file.truncate(data.rfind(b"\n") + 1)


def _last(scores: list[float]) -> float | None:
    """The last score that there is."""
    return next((score for score in reversed(scores) if score == score), None)
