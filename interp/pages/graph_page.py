"""The page of an attribution graph in circuit-tracer's JSON, which Neuronpedia reads, or of two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..circuits import Graph
from .page import Page, shard

GraphJson = Mapping[str, Any]
Given = Graph | GraphJson | str | Path
_NODE = ("node_id", "layer", "ctx_idx", "feature_type")


def graph_page(*graphs: Given) -> Page:
    """Returns the page of a graph, or of two side by side with what they have in common.

    Args:
        graphs: One or two: what `trace` returns, JSON in circuit-tracer's format (`metadata`,
            `qParams`, `nodes`, `links`), or the file that holds it. What it holds besides is kept.

    Raises ValueError for anything else, naming what is wrong.
    """
    if len(graphs) not in (1, 2):
        raise ValueError(f"graph_page: expected one graph or two, got {len(graphs)}")
    found = [read_graph(graph) for graph in graphs]
    shown = [
        {
            "shard": i,
            "name": str(graph["metadata"].get("slug") or f"graph {i + 1}"),
            "facts": [f"{len(graph['nodes']):,} nodes", f"{len(graph['links']):,} edges"],
        }
        for i, graph in enumerate(found)
    ]
    metadata = found[0]["metadata"]
    title = str(metadata.get("prompt") or "".join(metadata["prompt_tokens"]))
    data = {"view": "graph", "title": title, "graphs": shown, "dictionaries": []}
    return Page(f"{title[:60]} · bitlens graph", data, tuple(shard(graph) for graph in found))


def read_graph(graph: Given) -> GraphJson:
    """Returns a graph that a page can draw. Raises ValueError for one that it cannot."""
    name = "graph"
    if isinstance(graph, Graph):
        return graph.to_json()
    if not isinstance(graph, Mapping):
        name, path = str(graph), Path(graph)
        try:
            graph = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{name}: no JSON: {error}") from error
        if not isinstance(graph, Mapping):
            raise ValueError(f"{name}: expected an object with metadata, nodes and links")
    try:
        n_positions = len(graph["metadata"]["prompt_tokens"])
        ids = {_checked(node, n_positions) for node in graph["nodes"]}
        if len(ids) < len(graph["nodes"]):
            raise ValueError("two nodes of one node_id")
        for link in graph["links"]:
            if unknown := {link["source"], link["target"]} - ids:
                raise ValueError(f"a link to {min(unknown)!r}, which is no node")
            float(link["weight"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{name}: no graph in circuit-tracer's format: {what}") from error
    return graph


def _checked(node: Mapping[str, Any], n_positions: int) -> str:
    """The id of a node. Raises ValueError for one that has no place."""
    found = [node[key] for key in _NODE]
    if not 0 <= int(node["ctx_idx"]) < n_positions:
        raise ValueError(f"node {found[0]}: position {node['ctx_idx']} of {n_positions} tokens")
    if node["layer"] != "E":
        int(node["layer"])
    return str(found[0])
