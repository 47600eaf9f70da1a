"""Traces: requests as they came, one JSON object a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model.sources.json_lines import json_lines
from ...model.text.prompts import encode, require_tokenizer
from ...model.text.tokenizer import Tokenizer

_PROMPTS = ("ids", "prompt", "messages")
_FIELDS = frozenset({*_PROMPTS, "time", "keep", "output", "salt"})


@dataclass(frozen=True)
class TracedRequest:
    """A request of a trace.

    Attributes:
        time: Seconds since some beginning.
        ids: The prompt's tokens.
        keep: Its first tokens that are kept for later requests.
        output: Tokens of the answer.
        salt: Prompts of other salts are not read.
    """

    time: float
    ids: tuple[int, ...]
    keep: int
    output: int
    salt: str


def read_trace(path: Path, tokenizer: Tokenizer | None = None) -> list[TracedRequest]:
    """Returns the requests of a file.

    A line has `ids`, `prompt` (a text) or `messages` (a conversation), and may have `time` in
    seconds, never falling; `keep`, the tokens up to the mark at which the prompt is kept (default:
    all); `output`, tokens of the answer (default 0); and `salt`.

    Raises ValueError naming the line and what is wrong with it.
    """
    requests: list[TracedRequest] = []
    for where, fields in json_lines(path):
        try:
            found = _request(fields, tokenizer, requests[-1].time if requests else 0.0)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        requests.append(found)
    if not requests:
        raise ValueError(f"{path}: holds no request")
    return requests


def _request(fields: Any, tokenizer: Tokenizer | None, last: float) -> TracedRequest:
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {type(fields).__name__}")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise ValueError(f"{unknown[0]}: no such field; there are {', '.join(sorted(_FIELDS))}")
    ids = _ids(fields, tokenizer)
    time = fields.get("time", last)
    if isinstance(time, bool) or not isinstance(time, int | float) or not last <= time < math.inf:
        raise ValueError(f"time = {time!r}: expected seconds, not before {last}")
    keep, output = _count(fields, "keep", len(ids)), _count(fields, "output", 0)
    if keep > len(ids):
        raise ValueError(f"keep = {keep}: the prompt has {len(ids)} tokens")
    salt = fields.get("salt", "")
    if not isinstance(salt, str):
        raise ValueError(f"salt = {salt!r}: expected text")
    return TracedRequest(float(time), ids, keep, output, salt)


def _ids(fields: Mapping[str, Any], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    given = [name for name in _PROMPTS if name in fields]
    if len(given) != 1:
        raise ValueError(f"expected one of {', '.join(_PROMPTS)}, got {given}")
    value = fields[given[0]]
    if given == ["ids"]:
        ids = value
    elif tokenizer is None:
        raise ValueError(f"{given[0]}: text needs a tokenizer: give the model")
    elif given == ["prompt"]:
        if not isinstance(value, str):
            raise ValueError(f"prompt = {value!r}: expected text")
        (ids,) = encode(value, tokenizer, None)
    else:
        ids = require_tokenizer(tokenizer).encode_chat(value)
    if not isinstance(ids, list) or not ids or not all(type(each) is int for each in ids):
        raise ValueError(f"{given[0]}: expected at least one token")
    return tuple(ids)


def _count(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name, default)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} = {value!r}: expected a number of tokens")
    return value
