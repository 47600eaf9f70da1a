"""The findings of monitors, as lines of JSON that a killed process cannot spoil."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch

from ..._core import numerics_version
from ...model.generation import GenerateOutput
from ...model.serving import Completion
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
        self._write(
            [
                self._line(model, request_id, _Answer.of_row(output, row))
                for row in range(len(output.n_new))
            ]
        )

    def append_answers(
        self, model: Any, completions: Sequence[Completion], request_id: str
    ) -> None:
        """Writes a line for each answer of a request of the engine, as `append` does for rows."""
        answers = [_Answer.of_completion(row, each) for row, each in enumerate(completions)]
        self._write([self._line(model, request_id, answer) for answer in answers])

    def _write(self, found: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps(line, sort_keys=True, allow_nan=False) for line in found]
        data = "".join(line + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_broken_end(self.path)
        if self.path.exists() and self.path.stat().st_size + len(data) > self.max_bytes:
            self._rotate()
        with self.path.open("ab", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    def _line(self, model: Any, request_id: str, answer: _Answer) -> dict[str, Any]:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": request_id,
            "row": answer.row,
            "model_fingerprint": model.fingerprint(),
            "policy": model.ops.policy.name,
            "version": __version__,
            "numerics_version": numerics_version,
            "tokens_sha256": hashlib.sha256(answer.ids.numpy().tobytes()).hexdigest(),
            "n_tokens": len(answer.ids),
            "n_new": answer.n_new,
            "finish_reason": answer.finish_reason,
            "scores": {name: _last(scores) for name, scores in answer.scores.items()},
            "alarms": [alarm.to_dict() for alarm in answer.alarms],
        }
        return line | ({"text": answer.text} if self.with_text and answer.text is not None else {})

    def _rotate(self) -> None:
        for n in range(self.keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{n}")
            newer = self.path if n == 1 else self.path.with_name(f"{self.path.name}.{n - 1}")
            if newer.exists():
                newer.replace(older)


@dataclass(frozen=True)
class _Answer:
    """The part of an answer that a line tells."""

    row: int
    ids: torch.Tensor
    n_new: int
    finish_reason: str
    scores: dict[str, list[float]]
    alarms: list[Any]
    text: str | None

    @classmethod
    def of_row(cls, output: GenerateOutput, row: int) -> Self:
        return cls(
            row=row,
            ids=output.tokens[row][output.attention_mask[row] == 1],
            n_new=output.n_new[row],
            finish_reason=output.finish_reason[row],
            scores={name: x[row].tolist() for name, x in output.scores.items()},
            alarms=[alarm for alarm in output.alarms if alarm.row == row],
            text=output.text[row] if output.text else None,
        )

    @classmethod
    def of_completion(cls, row: int, found: Completion) -> Self:
        ids = [*found.prompt_ids, *found.ids]
        return cls(
            row=row,
            ids=torch.tensor(ids, dtype=torch.int64, device="cpu"),
            n_new=len(found.ids),
            finish_reason=found.finish_reason,
            scores={name: x.tolist() for name, x in found.scores.items()},
            alarms=list(found.alarms),
            text=found.text,
        )


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
