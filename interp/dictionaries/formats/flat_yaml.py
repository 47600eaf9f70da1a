"""YAML as far as circuit-tracer's config.yaml goes: names with plain values or lists of them.

JSON is YAML, too, and is taken. What is nested deeper is refused, not guessed at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ....model.sources.json_file import parse_object, read_text
from ....model.weights.checkpoint import CheckpointError
from ..config import DictionaryError

_LINE = re.compile(r"(?P<name>[A-Za-z_][\w.-]*)[ \t]*:(?:[ \t]+(?P<value>.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(?P<value>.*)")
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}
_NUMBER = re.compile(r"[+-]?\d+|[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")


def read_flat_yaml(path: Path) -> dict[str, Any]:
    """Reads a file of names and values. Raises DictionaryError with the line that is none."""
    try:
        text = read_text(path)
        if text.lstrip().startswith("{"):
            return parse_object(text, path)
    except CheckpointError as error:
        raise DictionaryError(str(error)) from error
    found: dict[str, Any] = {}
    name: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        bare = _without_comment(line).rstrip()
        if not bare or bare in ("---", "..."):
            continue
        where = f"{path}, line {number}"
        if (item := _ITEM.fullmatch(bare)) and name is not None:
            values = found[name] if found[name] is not None else []
            if not isinstance(values, list):
                raise DictionaryError(f"{where}: an item under {name!r}, which has a value")
            found[name] = [*values, _value(item["value"], where)]
        elif match := _LINE.fullmatch(bare):
            name = match["name"]
            if name in found:
                raise DictionaryError(f"{where}: {name!r} appears twice")
            found[name] = _value(match["value"] or "", where)
        else:
            raise DictionaryError(f"{where}: expected `name: value` or `- item`, not {bare[:60]!r}")
    return found


def _without_comment(line: str) -> str:
    """The line up to a `#` that follows a blank and stands in no quotes."""
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "#" and (i == 0 or line[i - 1] in " \t"):
            return line[:i]
    return line


def _value(text: str, where: str) -> Any:
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if text[0] in '"[':
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DictionaryError(f"{where}: {error}") from error
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
            raise DictionaryError(f"{where}: a list of plain values was expected")
        return value
    if text[0] == "'" and len(text) > 1 and text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text[0] in "{&*!|>%@`'":
        raise DictionaryError(f"{where}: {text[:40]!r} is more YAML than is read here; write JSON")
    if _NUMBER.fullmatch(text) and len(text) < 40:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    return text
