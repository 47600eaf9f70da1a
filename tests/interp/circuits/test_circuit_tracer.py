"""Graphs beside circuit-tracer's own of the same models and transcoders.

tests/golden/circuit_tracer/make.py made them, in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.interp import load_dictionaries, trace
from bitlens.interp.circuits import Graph
from bitlens.interp.dictionaries import load_cross_layer
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[2] / "golden" / "circuit_tracer"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/graph.safetensors"))

Name = tuple[str, int, int, int]
"""Kind, layer, position and id of a node."""

SET_TO_ZERO: set[Name] = {("error", layer, 0, -1) for layer in range(3)}
"""Errors at position 0: circuit-tracer leaves them out, so its edges do not add up to
activations; here they are nodes as everywhere."""


def ours(case: str) -> Graph:
    folder = GOLDEN / case
    model = bitlens.load(folder)
    if "cross_layer" in case:
        transcoders = load_cross_layer(folder / "transcoders")
    else:
        transcoders = load_dictionaries(folder / "transcoders")
    return trace(model, load_file(folder / "graph.safetensors")["tokens"][None], transcoders)


def names_of_theirs(found: dict[str, torch.Tensor]) -> list[Name]:
    """Returns circuit-tracer's nodes in its order: features, errors, tokens, logits."""
    n_positions, n_layers = len(found["tokens"]), 3
    features = [("feature", *node) for node in found["active_features"].tolist()]
    errors = [("error", i, t, -1) for i in range(n_layers) for t in range(n_positions)]
    tokens = [("embedding", -1, t, int(found["tokens"][t])) for t in range(n_positions)]
    logits = [("logit", -1, n_positions - 1, t) for t in found["logit_tokens"].tolist()]
    return [*features, *errors, *tokens, *logits]


def edges_of_ours(graph: Graph) -> dict[tuple[Name, Name], float]:
    names: list[Name] = [
        (n.kind, -1 if n.kind == "logit" else n.layer, n.position, n.feature) for n in graph.nodes
    ]
    assert len(set(names)) == len(names)
    rows = zip(graph.targets.tolist(), graph.sources.tolist(), graph.weights.tolist(), strict=True)
    return {(names[t], names[s]): w for t, s, w in rows if names[s] not in SET_TO_ZERO}


@pytest.mark.parametrize("case", CASES)
def test_edges_are_circuit_tracers(case: str) -> None:
    """To 1e-4 of the largest edge into a node; both compute in fp32, in other orders."""
    theirs = load_file(GOLDEN / case / "graph.safetensors")
    graph = ours(case)
    names = names_of_theirs(theirs)
    mine = edges_of_ours(graph)
    activations = {
        (n.kind, n.layer, n.position, n.feature): n.activation
        for n in graph.nodes
        if n.kind == "feature"
    }
    found = theirs["activations"].tolist()
    assert activations == pytest.approx(dict(zip(names, found, strict=False)), rel=1e-4, abs=1e-5)
    n_large = 0
    for t, row in zip(names, theirs["adjacency"], strict=True):
        limit = 1e-4 * float(row.abs().max())
        for s, weight in zip(names, row.tolist(), strict=True):
            other = mine.pop((t, s), 0.0)
            assert abs(other - weight) <= limit, (t, s, other, weight)
            n_large += abs(weight) > 100 * limit
    assert not any(mine.values())  # no edge that they lack
    assert n_large > 500


def test_every_case_is_there() -> None:
    assert len(CASES) == 5


def test_another_prompt_has_other_edges(tmp_path: Path) -> None:
    """The control: one token changed, and the comparison sees it."""
    folder = GOLDEN / "llama_topk_skip"
    theirs = load_file(folder / "graph.safetensors")
    tokens = theirs["tokens"].clone()
    tokens[2] = 4
    model = bitlens.load(folder)
    graph = trace(model, tokens[None], load_dictionaries(folder / "transcoders"))
    names, mine = names_of_theirs(theirs), edges_of_ours(graph)
    row = names.index(("logit", -1, len(tokens) - 1, int(theirs["logit_tokens"][0])))
    differences = [
        abs(mine.get((names[row], s), 0.0) - float(w))
        for s, w in zip(names, theirs["adjacency"][row], strict=True)
    ]
    assert max(differences) > 1e-2 * float(theirs["adjacency"][row].abs().max())
