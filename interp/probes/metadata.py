"""The fields of a probe's metadata that code relies on, checked when a file is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def checked_metadata(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata. Raises ValueError naming a field that does not hold what it should;
    fields of other names are kept as they are."""
    for name, (holds, expected) in _FIELDS.items():
        if name in found and not holds(found[name]):
            raise ValueError(f"metadata: {name}: expected {expected}")
    return dict(found)


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _number(value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) < 1e300 and math.isfinite(value)


def _margin(value: Any) -> bool:
    return _number(value) and value >= 0


def _digests(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _bounded(value: Any) -> bool:
    """Whether a guarantee says which rate it bounds, by how much, and how surely."""
    names = ("at_most", "confidence")
    return _object(value) and all(_number(value.get(n)) and 0 <= value[n] <= 1 for n in names)


def _golden(value: Any) -> bool:
    if not (_object(value) and _text(value.get("numerics_version"))):
        return False
    ids, scores = value.get("token_ids"), value.get("scores")
    return (
        isinstance(ids, list)
        and 0 < len(ids) <= 100
        and all(isinstance(row, list) and 0 < len(row) <= 1000 for row in ids)
        and all(i == 0 or _whole(i) for row in ids for i in row)
        and _object(scores)
        and all(isinstance(s, list) and len(s) == len(ids) for s in scores.values())
        and all(_number(x) for s in scores.values() for x in s)
    )


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_name": (_text, "a name"),
    "model_fingerprint": (_text, "a fingerprint in hex"),
    "policy": (_text, "the name of a policy"),
    "dictionary": (_text, "the name of a dictionary"),
    "numerics_version": (_text, "a version"),
    "max_tokens": (_whole, "a number of tokens"),
    "data": (_object, "an object"),
    "text_digests": (_digests, "a list of digests"),
    "margin": (_margin, "a finite number of at least 0"),
    "guarantee": (_bounded, "a rate and a confidence between 0 and 1"),
    "margin_guarantee": (_bounded, "a rate and a confidence between 0 and 1"),
    "golden": (_golden, "token ids, and as many finite scores for each policy"),
}
