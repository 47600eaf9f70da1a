"""The log of a run: a JSON object a line, without lines of steps that will be run again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from ..weights.atomic import write_atomically


class TrainingLog:
    """log.jsonl, and TensorBoard's events beside it where TensorBoard is installed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.jsonl"
        self._events: Any = None

    def begin(self, step: int) -> None:
        """Drops lines after a step, and a last line that was cut off."""
        kept = [json.dumps(line) for line in self.read() if line["step"] <= step]
        with write_atomically(self._path) as scratch:
            scratch.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(
                str(self._path.parent / "tensorboard"), purge_step=step + 1
            )

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._events is not None:
            for name, value in line.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(name, value, line["step"])

    def read(self) -> list[dict[str, Any]]:
        """Returns the lines that are whole."""
        if not self._path.exists():
            return []
        lines = []
        for text in self._path.read_text(encoding="utf-8").split("\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line:
                lines.append(line)
        return lines

    def last(self) -> dict[str, Any]:
        """Returns the last line; empty before the first."""
        return next(reversed(self.read()), {})
