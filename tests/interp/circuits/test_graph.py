"""Graphs: what pruning keeps, files, interventions, budgets, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.interp import Graph, trace
from bitlens.interp.circuits import GraphFileError, Node
from bitlens.interp.circuits.edge_stability import edge_stability
from bitlens.interp.circuits.graph_json import pair, unpair
from bitlens.interp.circuits.replacement import Replacement
from bitlens.interp.dictionaries import DictionaryError
from bitlens.model.hooks.registry import same_bits
from bitlens.model.parallel import Group, run_in_threads
from bitlens.model.transformer import HookedTransformer
from hypothesis import given
from hypothesis import strategies as st
from support.random_dictionaries import random_dictionary
from support.random_models import byte_tokenizer, random_model
from support.random_transcoders import random_cross_layer, random_set

MODEL = random_model("llama", tokenizer=byte_tokenizer())
TOKENS = torch.tensor([[7, 3, 1, 4, 1, 5, 9, 2]])
SET = random_set(MODEL)
CLT = random_cross_layer(MODEL, "hook_mlp_in")


def traced(dictionaries: Any, model: HookedTransformer = MODEL, **options: Any) -> Graph:
    return trace(model, TOKENS, dictionaries, **{"desired_logit_prob": 1.0, **options})


GRAPHS = {"set": traced(SET), "clt": traced(CLT)}
PRUNED = {name: graph.prune() for name, graph in GRAPHS.items()}


def sums(graph: Graph) -> torch.Tensor:
    return torch.bincount(graph.targets, graph.weights.double(), minlength=len(graph.nodes))


def of_kind(graph: Graph, kind: str) -> list[Node]:
    return [node for node in graph.nodes if node.kind == kind]


def best(graph: Graph, n: int) -> list[Node]:
    order = graph.influence.where(graph.of_kind("feature"), -1.0).argsort(descending=True)
    return [graph.nodes[i] for i in order[:n].tolist()]


# What a graph holds.


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("n", [7500, 30])
def test_each_node_is_its_edges_bias_and_what_is_omitted(name: str, n: int) -> None:
    dictionaries = SET if name == "set" else CLT
    graph = traced(dictionaries, max_feature_nodes=n)
    for each in (graph, graph.prune()):
        found = sums(each)
        for i, node in enumerate(each.nodes):
            if node.kind in ("feature", "logit"):
                total = float(found[i]) + node.bias + node.omitted
                assert total == pytest.approx(node.activation, abs=2e-5)
            else:
                assert found[i] == 0
    assert len(of_kind(graph, "feature")) == min(n, len(of_kind(GRAPHS[name], "feature")))
    has_rest = any(node.omitted for node in graph.nodes)
    assert has_rest == (n == 30)


def test_ids_are_unique_and_tokens_are_the_most_probable() -> None:
    graph = GRAPHS["set"]
    assert len(graph.index) == len(graph.nodes)
    p = torch.softmax(MODEL(TOKENS)[0, -1].double(), 0)
    assert list(graph.logit_targets) == p.argsort(descending=True)[:10].tolist()
    assert graph.logit_probabilities == pytest.approx(p[list(graph.logit_targets)].tolist())
    few = traced(SET, desired_logit_prob=float(p.max()))
    assert few.logit_targets == graph.logit_targets[:1]


def test_influence_is_the_sum_over_all_paths() -> None:
    """By powers of the matrix, as circuit-tracer computes it."""
    graph = GRAPHS["clt"]
    n = len(graph.nodes)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix[graph.targets, graph.sources] = graph.weights.double().abs()
    matrix /= matrix.sum(1, keepdim=True).clamp(min=1e-300)
    begin = torch.tensor([node.probability or 0.0 for node in graph.nodes], dtype=torch.float64)
    begin /= begin.sum()
    total, flow = begin.clone(), begin
    for _ in range(6):
        flow = flow @ matrix
        total += flow
    assert float((graph.influence - total).abs().max()) < 1e-12
    is_error = graph.of_kind("error")
    from_errors = total[is_error].sum()
    from_text = total[graph.of_kind("embedding")].sum()
    assert graph.replacement == pytest.approx(float(from_text / (from_text + from_errors)))
    clean = 1 - matrix[:, is_error].sum(1)
    assert graph.completeness == pytest.approx(float((clean * total).sum() / total.sum()))


@pytest.mark.parametrize("name", GRAPHS)
def test_pruning_keeps_errors_and_what_most_influence_passes_through(name: str) -> None:
    graph, pruned = GRAPHS[name], PRUNED[name]
    assert len(of_kind(pruned, "error")) == len(of_kind(graph, "error"))
    assert pruned.logit_targets == graph.logit_targets
    assert len(pruned.weights) < len(graph.weights) / 2
    least = graph.prune(1.0, 1.0)
    matters = graph.influence > 0
    carried = matters[graph.targets] & matters[graph.sources]
    assert same_bits(least.weights, graph.weights[carried])
    influence = dict(zip([n.id for n in graph.nodes], graph.influence.tolist(), strict=True))
    kept = {n.id for n in of_kind(pruned, "feature")}
    dropped = [influence[n.id] for n in of_kind(graph, "feature") if n.id not in kept]
    assert max(dropped) <= sorted(influence[id] for id in kept)[len(kept) // 2]
    ends = {"sources": set(pruned.sources.tolist()), "targets": set(pruned.targets.tolist())}
    for i, node in enumerate(pruned.nodes):
        if node.kind == "feature":
            assert i in ends["sources"]
            assert i in ends["targets"]
    assert not of_kind(graph.prune(0.0, 1.0), "feature")


def test_the_same_bits_whatever_the_threads_and_the_memory() -> None:
    bitlens.set_num_threads(1)
    again = traced(CLT, max_memory=3 << 20)
    assert same_bits(again.weights, GRAPHS["clt"].weights)
    assert again.nodes == GRAPHS["clt"].nodes


# Interventions.


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_set_changes_no_bit(name: str) -> None:
    for frozen in (True, False):
        assert not bool(GRAPHS[name].intervene({}, frozen=frozen).measured.any())


@pytest.mark.parametrize("name", GRAPHS)
def test_frozen_effects_are_as_predicted(name: str) -> None:
    graph = GRAPHS[name]
    first, second, third = best(graph, 3)
    error = max(of_kind(graph, "error"), key=lambda n: float(graph.influence[graph.index[n.id]]))
    values = (
        {first.id: 0.0},
        {first.id: 0.0, second.id: 3 * second.activation},
        {third.id: 0.0, error.id: 0.0, of_kind(graph, "embedding")[2].id: 0.5},
    )
    for each in values:
        predicted, measured = graph.intervene(each)
        size = float(predicted.abs().max())
        assert size > 0.01
        assert float((predicted - measured).abs().max()) < 1e-4 * size
        # The control: the model itself, which is not linear, does something else.
        _, unfrozen = graph.intervene(each, frozen=False)
        assert float((predicted - unfrozen).abs().max()) > 1e-2 * size


def test_frozen_effects_of_a_graph_of_few_features() -> None:
    """Features that are no node keep their values, so the prediction is as exact."""
    graph = traced(SET, max_feature_nodes=25)
    predicted, measured = graph.intervene({best(graph, 1)[0].id: 0.0})
    assert float((predicted - measured).abs().max()) < 1e-4 * float(predicted.abs().max())


def test_unfrozen_setting_is_a_splice() -> None:
    from bitlens.interp import Edit, splice

    dictionaries = random_set(MODEL, architectures=("topk_transcoder",))
    graph = traced(dictionaries)
    node = best(graph, 1)[0]
    hook = f"blocks.{node.layer}.hook_mlp_out"
    edit = Edit(node.feature, "set", 0.0, positions=node.position, hook_name=hook)
    with splice(MODEL, dictionaries, edits=[edit]):
        after = MODEL(TOKENS)[0, -1].double()
    before = MODEL(TOKENS)[0, -1].double()
    change = (after - after.mean()) - (before - before.mean())
    measured = graph.intervene({node.id: 0.0}, frozen=False).measured
    assert float((change[list(graph.logit_targets)] - measured).abs().max()) < 1e-5
    assert float(measured.abs().max()) > 1e-2


# Files.


def test_a_file_holds_the_graph_and_equal_graphs_give_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = PRUNED["clt"]
    pruned.save(tmp_path / "a.json")
    traced(CLT).prune().save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    found = Graph.load(tmp_path / "a.json")
    assert found.nodes == pruned.nodes
    assert same_bits(found.weights, pruned.weights)
    assert torch.equal(found.sources, pruned.sources)
    assert found.completeness == pruned.completeness
    assert found.input_tokens == tuple(TOKENS[0].tolist())
    found.save(tmp_path / "c.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "c.json").read_bytes()
    assert "create_time_ms" not in (tmp_path / "a.json").read_text()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found.save(tmp_path / "d.json")
    info = json.loads((tmp_path / "d.json").read_text())["metadata"]["info"]
    assert info["create_time_ms"] == 1_700_000_000_000


def test_supernodes_are_named_groups(tmp_path: Path) -> None:
    ids = [node.id for node in best(PRUNED["clt"], 2)]
    grouped = PRUNED["clt"].with_supernodes({"both": ids})
    grouped.save(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())["qParams"]["supernodes"]
    assert found == [["both", *ids]]
    assert Graph.load(tmp_path / "a.json").metadata["supernodes"] == found
    with pytest.raises(KeyError, match="no node"):
        grouped.with_supernodes({"x": ["9_9_9"]})


def test_a_loaded_graph_is_bound_to_its_model(tmp_path: Path) -> None:
    GRAPHS["clt"].save(tmp_path / "a.json")
    found = Graph.load(tmp_path / "a.json")
    node = best(found, 1)[0]
    with pytest.raises(ValueError, match="bind"):
        found.intervene({node.id: 0.0})
    predicted, measured = found.bind(MODEL, CLT).intervene({node.id: 0.0})
    assert same_bits(measured, GRAPHS["clt"].intervene({node.id: 0.0}).measured)
    assert float((predicted - measured).abs().max()) < 1e-4 * float(predicted.abs().max())
    with pytest.raises(ValueError, match="fingerprint"):
        found.bind(random_model("llama", seed=1), CLT)


def test_a_file_of_circuit_tracer_is_read(tmp_path: Path) -> None:
    """A graph in the form of its files: no field of ours."""
    node = {"ctx_idx": 1, "jsNodeId": "", "clerp": "", "influence": 0.5, "run_idx": 0}
    found = {
        "metadata": {"slug": "s", "scan": "x/y", "prompt_tokens": ["a", "b"], "prompt": "ab"},
        "qParams": {"linkType": "both"},
        "nodes": [
            {**node, "node_id": "E_17_1", "feature": 1, "layer": "E", "feature_type": "embedding"},
            {
                **node,
                "node_id": "3_25_1",
                "feature": pair(3, 25),
                "layer": "3",
                "feature_type": "cross layer transcoder",
                "activation": 2.5,
            },
            {
                **node,
                "node_id": "27_42_1",
                "feature": 42,
                "layer": "27",
                "feature_type": "logit",
                "token_prob": 0.75,
                "clerp": 'Output "x" (p=0.750)',
            },
        ],
        "links": [
            {"source": "3_25_1", "target": "27_42_1", "weight": 1.5},
            {"source": "E_17_1", "target": "3_25_1", "weight": -0.5},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(found))
    graph = Graph.load(tmp_path / "a.json")
    feature = graph.node("3_25_1")
    assert (feature.layer, feature.feature, feature.activation) == (3, 25, 2.5)
    assert graph.logit_targets == (42,)
    assert graph.replacement == 1.0
    assert float(graph.influence[graph.index["E_17_1"]]) == 1.0


@given(layer=st.integers(0, 300), feature=st.integers(0, 1 << 24))
def test_pairs_have_numbers(layer: int, feature: int) -> None:
    assert unpair(pair(layer, feature)) == (layer, feature)


def damaged(path: Path, change: Any) -> Path:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda f: f.pop("nodes"), "nodes is missing"),
        (lambda f: f["metadata"].pop("prompt"), "metadata.prompt is missing"),
        (lambda f: f["nodes"][3].pop("ctx_idx"), r"nodes\[3\].ctx_idx is missing"),
        (lambda f: f["nodes"][3].update(layer=3), r"nodes\[3\].layer"),
        (lambda f: f["nodes"][3].update(layer="drop"), "no number"),
        (lambda f: f["nodes"][3].update(feature=-4), "no feature's number"),
        (lambda f: f["nodes"][3].update(feature_type="lorsa"), "feature_type"),
        (lambda f: f["nodes"][3].update(node_id=f["nodes"][4]["node_id"]), "another node's"),
        (lambda f: f["links"][0].update(source="</script>"), r"links\[0\].source"),
        (lambda f: f["links"][0].update(weight=float("nan")), r"links\[0\].weight"),
        (lambda f: f["links"][0].update(weight="1"), r"links\[0\].weight"),
        (lambda f: f["nodes"].append(7), "expected an object"),
        (lambda f: f["metadata"].update(prompt_tokens=[1]), "prompt_tokens"),
        (lambda f: f["qParams"].update(supernodes=["a"]), r"qParams\.supernodes"),
    ],
)
def test_damaged_files_are_refused_by_field(tmp_path: Path, change: Any, names: str) -> None:
    PRUNED["set"].save(tmp_path / "a.json")
    with pytest.raises(GraphFileError, match=names):
        Graph.load(damaged(tmp_path / "a.json", change))


def test_hostile_labels_stay_text(tmp_path: Path) -> None:
    """Nothing of a label leaves its string: no quote, no tag, no lone surrogate in the bytes."""
    hostile = '</script>"\\\u2028\x1b[31m\ud800'
    PRUNED["set"].save(tmp_path / "a.json")
    path = damaged(tmp_path / "a.json", lambda f: f["nodes"][0].update(clerp=hostile))
    graph = Graph.load(path)
    assert graph.nodes[0].label == hostile
    graph.save(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes().isascii()
    assert Graph.load(tmp_path / "b.json").nodes[0].label == hostile
    path.write_bytes(b'{"metadata": \xff}')
    with pytest.raises(GraphFileError, match=r"a\.json"):
        Graph.load(path)


# What is refused.


refused = traced


def test_dictionaries_that_do_not_fit() -> None:
    other = random_model("llama", seed=1)
    carrying = random_dictionary(
        MODEL,
        "blocks.0.hook_mlp_in",
        "blocks.0.hook_mlp_out",
        "topk_transcoder",
        metadata={"model_fingerprint": MODEL.fingerprint()},
    )
    refused([carrying])
    with pytest.raises(DictionaryError, match="fingerprint"):
        refused([carrying], other)
    with pytest.raises(DictionaryError, match="sparse autoencoder"):
        refused([random_dictionary(MODEL, "blocks.1.hook_resid_post")])
    with pytest.raises(DictionaryError, match="same block"):
        refused(
            [
                random_dictionary(
                    MODEL, "blocks.0.hook_mlp_in", "blocks.1.hook_mlp_out", "transcoder"
                )
            ]
        )
    with pytest.raises(DictionaryError, match="two transcoders"):
        refused([SET[0], SET[0]])
    with pytest.raises(DictionaryError, match="layers"):
        refused(
            CLT, random_model("llama", changes={"n_layers": 2, "layers": MODEL.config.layers[:2]})
        )
    with pytest.raises(DictionaryError, match="no dictionaries"):
        refused([])


def test_layers_without_a_transcoder_are_errors() -> None:
    graph = traced([SET[1]])
    assert {node.layer for node in of_kind(graph, "feature")} == {1}
    assert graph.replacement < GRAPHS["set"].replacement


def test_budgets() -> None:
    with pytest.raises(ValueError, match="max_memory"):
        refused(SET, max_memory=1000)
    for name, value in (("max_n_logits", 0), ("max_feature_nodes", -1), ("desired_logit_prob", 0)):
        with pytest.raises(ValueError, match=name):
            refused(SET, **{name: value})
    bare = traced(SET, max_feature_nodes=0)
    assert {node.kind for node in bare.nodes} == {"error", "embedding", "logit"}


def test_prompts_and_models() -> None:
    for prompt in (["one", "two"], torch.zeros(2, 3, dtype=torch.int64), []):
        with pytest.raises(ValueError, match=r"one prompt|one sequence"):
            trace(MODEL, prompt, SET)
    with pytest.raises(ValueError, match="hf_bf16"):
        refused(SET, random_model("llama", dtype="hf_bf16"))

    def on_a_rank(group: Group) -> str:
        model = random_model("llama", group=group)
        with pytest.raises(ValueError, match="ranks"):
            refused(SET, model)
        return "refused"

    assert run_in_threads(2, on_a_rank) == ["refused"] * 2


def test_interventions_that_are_none() -> None:
    graph = GRAPHS["set"]
    with pytest.raises(KeyError, match="no node"):
        graph.intervene({"9_9_9": 0.0})
    with pytest.raises(ValueError, match="logit"):
        graph.intervene({of_kind(graph, "logit")[0].id: 0.0})
    with pytest.raises(ValueError, match="finite"):
        graph.intervene({best(graph, 1)[0].id: float("nan")})


# Error bars.


def test_edges_are_compared_over_precisions() -> None:
    bf16 = random_model("llama", dtype="bf16", tokenizer=byte_tokenizer())
    graphs = [PRUNED["clt"], traced(CLT, bf16).prune()]
    found = edge_stability(graphs)
    assert found.weights.shape == (2, len(found.edges))
    assert bool((found.error > 0).any())
    other = random_model("llama", seed=1, tokenizer=byte_tokenizer())
    unlike = edge_stability([PRUNED["clt"], traced(CLT, other).prune()])
    assert unlike.stable_share < found.stable_share
    same = edge_stability([PRUNED["clt"], PRUNED["clt"]])
    assert same.stable_share == pytest.approx(1.0)
    assert float(same.error.max()) == 0
    with pytest.raises(ValueError, match="two or more"):
        edge_stability(graphs[:1])


def test_bf16_graphs_are_of_what_bf16_computed() -> None:
    model = random_model("llama", dtype="bf16")
    graph = traced(CLT, model)
    assert isinstance(graph.traced, Replacement)
    found = sums(graph)
    off = [
        abs(float(found[i]) + n.bias + n.omitted - n.activation)
        for i, n in enumerate(graph.nodes)
        if n.kind == "feature"
    ]
    assert 1e-5 < max(off) < 0.1  # bf16's roundings on the way are no part of the linear map
