"""The leaderboard's types as JSON Schema, and whether arguments fit a schema."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ...model.text.tools import Tool

TYPES = {
    "dict": "object",
    "string": "string",
    "integer": "integer",
    "float": "number",
    "boolean": "boolean",
    "array": "array",
    "tuple": "array",
    "any": "string",
}
"""JSON Schema's name of each of the leaderboard's types, as the leaderboard maps them itself."""

_PYTHON: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}

_KEPT = ("description", "default", "enum")
_KEPT_OF = {
    "string": ("format",),
    "integer": ("maximum",),
    "number": ("maximum",),
    "array": ("minItems", "maxItems"),
}
"""Keywords that mean something for a type. `optional` is none of JSON Schema's, and `required`
says it already."""


def as_tool(function: Mapping[str, Any]) -> Tool:
    """Returns one of the leaderboard's functions as a tool, its types mapped.

    Raises ValueError for a type or a keyword that is not known.
    """
    return Tool(function["name"], function["description"], schema_of(function["parameters"]))


def schema_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON schema of a parameter. An object has the properties that are named and no
    others; where none are named, any. Raises as `as_tool`."""
    if description.get("type") not in TYPES:
        raise ValueError(f"type {description.get('type')!r}: expected one of {', '.join(TYPES)}")
    kind = TYPES[description["type"]]
    _require_known(description)
    kept = (*_KEPT, *_KEPT_OF.get(kind, ()))
    schema: dict[str, Any] = {"type": kind}
    schema |= {name: description[name] for name in kept if name in description}
    if "items" in description:
        schema["items"] = schema_of(description["items"])
    if "properties" in description:
        properties = description["properties"]
        schema["properties"] = {name: schema_of(each) for name, each in properties.items()}
        schema["required"] = list(description.get("required", ()))
        schema["additionalProperties"] = False
    return schema


_KNOWN = {"type", "items", "properties", "required", "optional", *_KEPT}.union(*_KEPT_OF.values())


def _require_known(description: Mapping[str, Any]) -> None:
    if unknown := sorted(set(description) - _KNOWN):
        raise ValueError(f"{', '.join(unknown)}: a keyword that is not known")


def misfit(value: Any, schema: Mapping[str, Any], where: str = "arguments") -> str | None:
    """Returns what of a value does not fit a schema of `schema_of`, None where it fits.

    It is written without the library that forces answers into schemas, which it judges.
    """
    kind = schema["type"]
    # A float without a fraction is an integer, in JSON Schema; a truth value is no number.
    whole = kind == "integer" and isinstance(value, float) and value.is_integer()
    is_bool = isinstance(value, bool) and kind != "boolean"
    if is_bool or not (whole or isinstance(value, _PYTHON[kind])):
        return f"{where}: {type(value).__name__} for {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: {value!r} is none of the values"
    if "maximum" in schema and value > schema["maximum"]:
        return f"{where}: {value} is more than {schema['maximum']}"
    if schema.get("format") == "date" and not _is_date(value):
        return f"{where}: {value!r} is no date"
    if kind == "array":
        return _misfit_items(value, schema, where)
    return _misfit_object(value, schema, where) if kind == "object" else None


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("2000-01-01")


def _misfit_items(value: list[Any], schema: Mapping[str, Any], where: str) -> str | None:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return f"{where}: {len(value)} items"
    if "items" not in schema:
        return None
    found = (misfit(each, schema["items"], f"{where}[{i}]") for i, each in enumerate(value))
    return next((each for each in found if each is not None), None)


def _misfit_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> str | None:
    if "properties" not in schema:
        return None
    for name in schema["required"]:
        if name not in value:
            return f"{where}: no {name}"
    for name, each in value.items():
        if name not in schema["properties"]:
            return f"{where}: {name} is no parameter"
        if (found := misfit(each, schema["properties"][name], f"{where}.{name}")) is not None:
            return found
    return None
