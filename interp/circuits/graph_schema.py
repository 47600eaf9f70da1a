"""The schema of Neuronpedia's graph files, and what does not fit it.

After Neuronpedia's draft-07 schema. What it does not name may be there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 1 << 20

FEATURE = "cross layer transcoder"
ERROR = "mlp reconstruction error"
EMBEDDING = "embedding"
LOGIT = "logit"
FEATURE_TYPES = (FEATURE, ERROR, EMBEDDING, LOGIT)


class GraphFileError(ValueError):
    """A graph file that is damaged; names the field."""


@dataclass(frozen=True)
class _Field:
    """What a field holds: "string", "number", "integer", "boolean", "object", "list", "texts",
    and "groups", lists of texts."""

    kind: str
    required: bool = False


_METADATA = {
    "slug": _Field("string", True),
    "scan": _Field("string", True),
    "prompt_tokens": _Field("texts", True),
    "prompt": _Field("string", True),
    "node_threshold": _Field("number"),
    "schema_version": _Field("number"),
    "info": _Field("object"),
    "generation_settings": _Field("object"),
    "pruning_settings": _Field("object"),
}
_NODE = {
    "node_id": _Field("string", True),
    "feature": _Field("number", True),
    "layer": _Field("string", True),
    "ctx_idx": _Field("integer", True),
    "feature_type": _Field("string", True),
    "jsNodeId": _Field("string", True),
    "clerp": _Field("string", True),
    "influence": _Field("number"),
    "activation": _Field("number"),
    "token_prob": _Field("number"),
    "is_target_logit": _Field("boolean"),
    "bias": _Field("number"),
    "omitted": _Field("number"),
}
_LINK = {
    "source": _Field("string", True),
    "target": _Field("string", True),
    "weight": _Field("number", True),
}
_WHOLE = {
    "metadata": _Field("object", True),
    "qParams": _Field("object", True),
    "nodes": _Field("list", True),
    "links": _Field("list", True),
}


def check_graph(found: Mapping[str, Any]) -> None:
    """Raises GraphFileError naming the first field that is missing or holds something else."""
    _check(found, _WHOLE, "")
    _check(found["metadata"], _METADATA, "metadata.")
    _check(found["qParams"], {"supernodes": _Field("groups")}, "qParams.")
    for name, fields in (("nodes", _NODE), ("links", _LINK)):
        for i, each in enumerate(found[name]):
            if not isinstance(each, dict):
                raise GraphFileError(f"{name}[{i}]: expected an object")
            _check(each, fields, f"{name}[{i}].")
    for i, node in enumerate(found["nodes"]):
        if node["feature_type"] not in FEATURE_TYPES:
            raise GraphFileError(
                f"nodes[{i}].feature_type = {node['feature_type'][:60]!r}: expected one of "
                f"{', '.join(FEATURE_TYPES)}"
            )
    _check_ids(found)


def _check(found: Mapping[str, Any], fields: Mapping[str, _Field], where: str) -> None:
    for name, field in fields.items():
        value = found.get(name)
        if value is None:
            if field.required:
                raise GraphFileError(f"{where}{name} is missing")
        elif not _fits(value, field.kind):
            shown = repr(value)[:60]
            raise GraphFileError(f"{where}{name} = {shown}: expected {field.kind}")


def _fits(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str) and len(value) <= _LONGEST
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "object":
        return isinstance(value, dict)
    if kind == "list":
        return isinstance(value, list)
    if kind == "groups":
        return isinstance(value, list) and all(_fits(each, "texts") for each in value)
    if kind == "texts":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "integer":
        return isinstance(value, int) and 0 <= value <= 1 << 31
    return abs(value) <= 1 << 62 if isinstance(value, int) else math.isfinite(value)


def _check_ids(found: Mapping[str, Any]) -> None:
    ids: set[str] = set()
    for i, node in enumerate(found["nodes"]):
        id = node["node_id"]
        if id in ids:
            raise GraphFileError(
                f"nodes[{i}].node_id = {id[:60]!r} is another node's, too, so a link names neither "
                "(circuit-tracer gives errors the ids of features of layer 0)"
            )
        ids.add(id)
    for i, link in enumerate(found["links"]):
        for end in ("source", "target"):
            if link[end] not in ids:
                raise GraphFileError(f"links[{i}].{end} = {link[end][:60]!r} is no node")
