"""Files that a run is described in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any


def read_table(file: Path) -> dict[str, Any]:
    """Returns the table that a TOML or JSON file holds. Raises OSError and ValueError naming it."""
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected an object")
    return found
