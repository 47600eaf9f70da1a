"""Files that hold principles: TOML, and the JSON of Anthropic's ConstitutionalHarmlessnessPaper."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 20
KEYS = frozenset({"critique", "comparison", "example"})


def read_layout(path: Path) -> dict[str, Any]:
    """Returns lists of rows under "critique", "comparison" and "example", their texts unchecked.

    Raises ValueError for a file that is too large, no TOML or JSON, of neither layout, or without
    principles; OSError for one that cannot be read.
    """
    if path.is_dir():
        parts = [_read(file) for file in sorted(path.glob("*Instructions.json"))]
        found = {key: rows for part in parts for key, rows in part.items()}
    else:
        found = _read(path)
    if not found.get("critique") and not found.get("comparison"):
        raise ValueError(
            f"{path}: no principles; expected [[critique]] with request and revision, or "
            "[[comparison]] with instruction"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}: {len(data)} bytes, a constitution has at most {MOST_BYTES}")
    try:
        text = data.decode("utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
        raise ValueError(f"{path}: {error}") from error
    if path.suffix == ".json":
        return _anthropic(found, path)
    if unknown := sorted(found.keys() - KEYS):
        raise ValueError(f"{path}: {unknown[0]!r} is none of {', '.join(sorted(KEYS))}")
    return found


def _anthropic(found: Any, path: Path) -> dict[str, Any]:
    """Rows of {"harmful0": {"prompt": [...], "edit_request": ...}}, or a list of instructions."""
    if isinstance(found, list):
        return {
            "comparison": [
                {"name": f"comparison{i}", "instruction": _bare(text, path)}
                for i, text in enumerate(found)
            ]
        }
    rows = []
    for name, pair in found.items() if isinstance(found, dict) else ():
        if not isinstance(pair, dict) or not {"prompt", "edit_request"} <= pair.keys():
            raise ValueError(f"{path}, {name}: expected prompt and edit_request")
        request = pair["prompt"][0] if isinstance(pair["prompt"], list) else pair["prompt"]
        rows.append(
            {
                "name": name,
                "request": _bare(request, path),
                "revision": _bare(pair["edit_request"], path),
            }
        )
    return {"critique": rows}


def _bare(text: Any, path: Path) -> str:
    """Without the labels that the repository writes around each request."""
    if not isinstance(text, str):
        raise ValueError(f"{path}: expected a text, not {text!r}"[:300])
    text = re.sub(r"^\s*(Critique|Revision) ?Request:", "", text)
    return re.sub(r"(Critique|Revision|Options):\s*$", "", text).strip()
