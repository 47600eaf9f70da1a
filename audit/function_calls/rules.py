"""The leaderboard's rules of a right call, for Python: a name, arguments and allowed values.

They are those of bfcl-eval's `ast_checker`, oddities included, so that a score here is a score
there; tests hold verdicts of its own code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...model.text.tools import ToolCall
from .questions import Question

_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}

OPTIONAL = ""
"""Stands among the values of an argument that may be left out."""

Allowed = Sequence[Any]


def fault_of(calls: Sequence[ToolCall], question: Question) -> str | None:
    """Returns why the calls are wrong, None where they are right."""
    if question.allowed is None:
        return "called a function" if calls else None
    if len(calls) != 1:
        return "no call" if not calls else "several calls"
    ((name, allowed),) = question.allowed.items()
    (call,) = calls
    if call.name != name:
        return "another function"
    (function,) = (each for each in question.functions if each["name"] == name)
    return _fault_of_arguments(call.arguments, function["parameters"], allowed)


def _fault_of_arguments(
    arguments: Mapping[str, Any], parameters: Mapping[str, Any], allowed: Mapping[str, Allowed]
) -> str | None:
    if any(name not in arguments for name in parameters.get("required", ())):
        return "a required argument is missing"
    for name, value in arguments.items():
        if name not in parameters["properties"] or name not in allowed:
            return "an argument that should not be there"
        fault = _fault_of_value(value, parameters["properties"][name], allowed[name])
        if fault is not None:
            return fault
    left_out = (name for name in allowed if name not in arguments)
    if any(OPTIONAL not in allowed[name] for name in left_out):
        return "an argument that is needed here is missing"
    return None


def _fault_of_value(value: Any, described: Mapping[str, Any], allowed: Allowed) -> str | None:
    kind = described["type"]
    own = _TYPES[kind]
    of_items = _TYPES[described["items"]["type"]] if kind in ("array", "tuple") else None
    if kind == "float" and type(value) is int:
        value = float(value)
    fits, as_answered = _type_fits(value, own, allowed, of_items)
    if not fits:
        return "a value of another type"
    if as_answered:
        return None if value in allowed else "another value"
    if own is dict:
        right = any(_same_dict(value, each) for each in allowed if each != OPTIONAL)
    elif of_items is dict:
        right = any(_same_dicts(value, each) for each in allowed)
    elif own is str:
        right = _plain(value) in [_plain(each) for each in allowed if isinstance(each, str)]
    elif own is list:
        right = _plain_items(value) in [_plain_items(each) for each in allowed]
    else:
        right = value in allowed
    return None if right else "another value"


def _type_fits(value: Any, own: type, allowed: Allowed, of_items: type | None) -> tuple[bool, bool]:
    """Whether a value has its parameter's type, or that of the answers, and whether the answers'
    type counts, which is another: then values are compared as they are."""
    given = type(value)
    answered = next((type(each) for each in allowed if each != OPTIONAL), None)
    if given is not own:
        return answered is given, True
    differs = answered is not None and answered is not own
    if of_items is None:
        return True, differs
    lists = [each for each in allowed if isinstance(each, list)]
    # One that may be left out is one whose items may be anything.
    fits = len(lists) < len(allowed) or any(
        all(_type_fits(item, of_items, each, None)[0] for item in value) for each in lists
    )
    return fits, differs


def _plain(text: str) -> str:
    """A text without spaces and marks, in lower case: "April 1, 2024" is "April 1 2024"."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def _plain_value(value: Any) -> Any:
    return _plain(value) if isinstance(value, str) else value


def _plain_items(values: Sequence[Any]) -> list[Any]:
    return [_plain_value(each) for each in values]


def _same_dict(value: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> bool:
    right = (
        name in allowed and _plain_value(each) in _plain_items(allowed[name])
        for name, each in value.items()
    )
    left_out = (name for name in allowed if name not in value)
    return all(right) and all(OPTIONAL in allowed[name] for name in left_out)


def _same_dicts(values: Sequence[Any], allowed: Sequence[Any]) -> bool:
    return len(values) == len(allowed) and all(map(_same_dict, values, allowed))
