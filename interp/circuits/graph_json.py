"""Graphs as Neuronpedia and circuit-tracer keep them: one JSON file."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...model.sources.json_file import parse_object
from ...model.weights.atomic import write_atomically
from ...model.weights.checkpoint import CheckpointError
from ...version import __version__
from .graph_data import GraphData, Kind, Node
from .graph_schema import EMBEDDING, ERROR, FEATURE, LOGIT, GraphFileError, check_graph

_TYPES: dict[Kind, str] = {
    "feature": FEATURE,
    "error": ERROR,
    "embedding": EMBEDDING,
    "logit": LOGIT,
}
_KINDS = {name: kind for kind, name in _TYPES.items()}
_OURS = ("model_name", "model_fingerprint", "policy", "transcoders")
_SCHEMA_VERSION = 1


def as_json(graph: GraphData, influence: Sequence[float]) -> dict[str, Any]:
    """Returns a graph in circuit-tracer's format.

    `influence` is each node's, cumulative from 0 to 1. The time is SOURCE_DATE_EPOCH's, or left
    out, so that the same graph gives the same bytes.
    """
    nodes = [_node(n, x) for n, x in zip(graph.nodes, influence, strict=True)]
    ids = [node.id for node in graph.nodes]
    links = [
        {"source": ids[s], "target": ids[t], "weight": w}
        for s, t, w in zip(
            graph.sources.tolist(), graph.targets.tolist(), graph.weights.tolist(), strict=True
        )
    ]
    supernodes = graph.metadata.get("supernodes", [])
    found = {
        "metadata": _metadata(graph),
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": "", "supernodes": supernodes},
        "nodes": nodes,
        "links": links,
    }
    check_graph(found)
    return found


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Writes what `as_json` returns. Raises OSError where it cannot be written."""
    with write_atomically(path) as scratch:
        text = json.dumps(found, allow_nan=False, separators=(",", ":"))
        scratch.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> GraphData:
    """Reads a graph file.

    Raises:
        FileNotFoundError: no such file.
        GraphFileError: one that is damaged, naming the field.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such graph file")
    try:
        found = parse_object(path.read_text(encoding="utf-8"), path)
        check_graph(found)
        return _graph(found)
    except (CheckpointError, UnicodeDecodeError) as error:
        raise GraphFileError(f"{path}: {error}") from error
    except GraphFileError as error:
        raise GraphFileError(f"{path}: {error}") from error


def pair(layer: int, feature: int) -> int:
    """Returns Cantor's number of a pair, which Neuronpedia calls features by."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def unpair(number: int) -> tuple[int, int]:
    """Returns layer and feature of Cantor's number."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature


def _metadata(graph: GraphData) -> dict[str, Any]:
    m = graph.metadata
    labels = {n.position: n.label for n in graph.nodes if n.kind == "embedding"}
    tokens = m.get("prompt_tokens") or [
        labels.get(i, str(token)) for i, token in enumerate(graph.input_tokens)
    ]
    info: dict[str, Any] = {
        "creator_name": "bitlens",
        "generator": {"name": "bitlens", "version": __version__},
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        if not epoch.isdecimal():
            raise ValueError(f"SOURCE_DATE_EPOCH = {epoch!r}: expected seconds since 1970")
        info["create_time_ms"] = int(epoch) * 1000
    prompt = m.get("prompt")
    found: dict[str, Any] = {
        "slug": m.get("slug") or "graph",
        "scan": m.get("scan") or m.get("model_name") or "unknown",
        "prompt_tokens": tokens,
        "prompt": "".join(tokens) if prompt is None else prompt,
        "schema_version": _SCHEMA_VERSION,
        "info": info,
    }
    for name in ("generation_settings", "pruning_settings"):
        if name in m:
            found[name] = dict(m[name])
    ours = {name: m[name] for name in _OURS if m.get(name) is not None}
    found["bitlens"] = {**ours, "input_tokens": list(graph.input_tokens)}
    return found


def _node(node: Node, influence: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "node_id": node.id,
        "feature": node.feature,
        "layer": str(node.layer),
        "ctx_idx": node.position,
        "feature_type": _TYPES[node.kind],
        "jsNodeId": f"{node.id}-0",
        "clerp": node.label,
        "influence": influence,
        "activation": node.activation,
        "is_target_logit": node.kind == "logit",
    }
    if node.kind == "feature":
        found["feature"] = pair(node.layer, node.feature)
        found["jsNodeId"] = f"{node.layer}_{node.feature}-0"
    elif node.kind == "embedding":
        found["layer"] = "E"
    if node.probability is not None:
        found["token_prob"] = node.probability
    if node.kind in ("feature", "logit"):
        found["bias"], found["omitted"] = node.bias, node.omitted
    return found


def _graph(found: Mapping[str, Any]) -> GraphData:
    m = found["metadata"]
    nodes = tuple(_read_node(each) for each in found["nodes"])
    numbers = {node.id: i for i, node in enumerate(nodes)}
    links = sorted(
        (numbers[link["target"]], numbers[link["source"]], float(link["weight"]))
        for link in found["links"]
    )
    ours = m.get("bitlens") if isinstance(m.get("bitlens"), dict) else {}
    given = ours.get("input_tokens")
    if not (isinstance(given, list) and all(isinstance(t, int) for t in given)):
        by_position = {n.position: n.feature for n in nodes if n.kind == "embedding"}
        given = [by_position.get(i, -1) for i in range(len(m["prompt_tokens"]))]
    kept = ("slug", "scan", "prompt", "prompt_tokens", "generation_settings", "pruning_settings")
    metadata = {name: m[name] for name in kept if m.get(name) is not None}
    metadata |= {name: ours[name] for name in _OURS if name in ours}
    if found["qParams"].get("supernodes"):
        metadata["supernodes"] = found["qParams"]["supernodes"]
    return GraphData(
        nodes,
        torch.tensor([source for _, source, _ in links], dtype=torch.int64, device="cpu"),
        torch.tensor([target for target, _, _ in links], dtype=torch.int64, device="cpu"),
        torch.tensor([weight for *_, weight in links], dtype=torch.float32, device="cpu"),
        tuple(given),
        metadata,
    )


def _read_node(found: Mapping[str, Any]) -> Node:
    kind = _KINDS[found["feature_type"]]
    id, position = found["node_id"], found["ctx_idx"]
    layer, feature = _place(found, kind)
    activation = found.get("activation")
    return Node(
        id,
        kind,
        layer,
        position,
        feature,
        1.0 if activation is None else float(activation),
        found["clerp"],
        found.get("token_prob") if kind == "logit" else None,
        float(found.get("bias") or 0.0),
        float(found.get("omitted") or 0.0),
    )


def _place(found: Mapping[str, Any], kind: Kind) -> tuple[int, int]:
    """Layer and feature of a node."""
    id = found["node_id"]
    if kind == "embedding":
        match = re.fullmatch(r"E_(\d{1,10})_\d{1,10}", id)
        return -1, int(match[1]) if match else -1
    if not re.fullmatch(r"-?\d{1,9}", found["layer"]):
        raise GraphFileError(f"node {id[:60]!r}: layer = {found['layer'][:60]!r} is no number")
    layer = int(found["layer"])
    if kind == "error":
        return layer, -1
    if kind == "logit":
        match = re.fullmatch(r"\d{1,10}_(\d{1,10})_\d{1,10}", id)
        return layer, int(match[1]) if match else int(found["feature"])
    number = found["feature"]
    if number < 0 or number != int(number):
        raise GraphFileError(f"node {id[:60]!r}: feature = {number} is no feature's number")
    return layer, unpair(int(number))[1]
