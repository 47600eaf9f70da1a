"""Users' prompts: JSONL in the layouts of XSTest and hh-rlhf, or a plain one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ...interp.probes.data import DataError, Dataset, Example
from ...model.sources.json_lines import json_lines

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURNS = ("chosen", "transcript")


def read_user_prompts(path: Path) -> Dataset:
    """Reads prompts, 1 for harmful ones, in any of three layouts, a line each:

    - XSTest: "prompt" with "label" ("safe" or "unsafe"), or with "type", which begins with
      "contrast" for unsafe ones; safe ones are near misses;
    - hh-rlhf: "chosen" (with "rejected"), or "transcript": the first turn of the human, harmful;
    - "prompt" with "kind": "harmful", "near_miss" or "benign".

    "id" names a row, otherwise its line does. Raises OSError, and DataError naming the line and
    never quoting it.
    """
    examples = []
    for where, row in json_lines(path, DataError):
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object")
        text, kind = _read(row, where)
        id = str(row.get("id", f"line-{where.rpartition(' ')[2]}"))
        examples.append(Example(id, text, int(kind == "harmful"), id, kind, path.stem))
    if not examples:
        raise DataError(f"{path.name} holds no prompts")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Dataset(path.stem, tuple(examples), digest)


def _read(row: dict[str, Any], where: str) -> tuple[str, str]:
    for name in _TURNS:
        if name in row:
            return _first_turn(row[name], where, name), "harmful"
    text = row.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where}: expected a "prompt" that is not empty, or "chosen"')
    if row.get("kind") in ("harmful", "near_miss", "benign"):
        return text, str(row["kind"])
    if row.get("label") in ("safe", "unsafe"):
        return text, "near_miss" if row["label"] == "safe" else "harmful"
    if isinstance(row.get("type"), str):
        return text, "harmful" if row["type"].startswith("contrast") else "near_miss"
    raise DataError(f'{where}: expected "kind", or XSTest\'s "label" or "type"')


def _first_turn(text: Any, where: str, name: str) -> str:
    if not isinstance(text, str) or not text.startswith(_HUMAN):
        raise DataError(f'{where}: expected "{name}" to begin with a turn of the human')
    found = text.removeprefix(_HUMAN).partition(_ASSISTANT)[0].strip()
    if not found:
        raise DataError(f"{where}: the first turn is empty")
    return found
