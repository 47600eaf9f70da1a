"""Attribution graphs in circuit-tracer's JSON, drawn by chance."""

from __future__ import annotations

import random
from typing import Any

ERROR, FEATURE = "mlp reconstruction error", "cross layer transcoder"


def random_graph(
    n_features: int = 40,
    n_layers: int = 4,
    tokens: tuple[str, ...] = ("A", " b", " c"),
    seed: int = 0,
) -> dict[str, Any]:
    """Returns a graph: tokens below, features and errors in layers, two outputs on top; edges
    lead up, from a position or one before it."""
    source = random.Random(seed)
    last = len(tokens) - 1
    nodes = [
        _node(f"E_{i}_{i}", "E", i, "embedding", clerp=f'Emb: "{t}"') for i, t in enumerate(tokens)
    ]
    for number in range(n_features):
        layer, position = source.randrange(n_layers), source.randrange(1, last + 1)
        name = f"{layer}_{number}_{position}"
        nodes.append(_node(name, str(layer), position, FEATURE, activation=source.uniform(1, 60)))
    for layer in range(n_layers):
        nodes += [_node(f"{layer}_error_{p}", str(layer), p, ERROR) for p in range(1, last + 1)]
    for rank, token in enumerate((" yes", " no")):
        p = (0.7, 0.2)[rank]
        clerp = f'Output "{token}" (p={p})'
        nodes.append(
            _node(
                f"{n_layers + 1}_{rank}_{last}", str(n_layers + 1), last, "logit", clerp=clerp, p=p
            )
        )
    for i, node in enumerate(nodes):
        node["influence"] = round((i + 1) / len(nodes), 4)
    links = []
    for node in nodes[len(tokens) :]:
        for other in source.sample(nodes, min(12, len(nodes))):
            if _level(other) < _level(node) and other["ctx_idx"] <= node["ctx_idx"]:
                weight = source.gauss(0, 1)
                links.append(
                    {"source": other["node_id"], "target": node["node_id"], "weight": weight}
                )
    return {
        "metadata": {
            "slug": f"random-{seed}",
            "scan": "random",
            "prompt": "".join(tokens),
            "prompt_tokens": list(tokens),
            "node_threshold": 0.8,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": None,
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": links,
    }


def _level(node: dict[str, Any]) -> int:
    return -1 if node["layer"] == "E" else int(node["layer"])


def _node(
    name: str,
    layer: str,
    position: int,
    kind: str,
    clerp: str = "",
    p: float = 0.0,
    activation: float = 0.0,
) -> dict[str, Any]:
    return {
        "node_id": name,
        "feature": None,
        "layer": layer,
        "ctx_idx": position,
        "feature_type": kind,
        "jsNodeId": name,
        "clerp": clerp,
        "activation": activation,
        "token_prob": p,
        "is_target_logit": p > 0.5,
    }
