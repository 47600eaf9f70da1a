"""Models built by hand: a graph finds their circuits, and tells an unfaithful transcoder."""

from __future__ import annotations

import pytest
import torch
from bitlens.interp import Dictionary, Graph, trace
from bitlens.interp.circuits.faithfulness import faithfulness, spearman
from support.planted_models import (
    COPIED,
    MIDDLE,
    TOKEN,
    cross_layer,
    induction,
    transcoder,
    two_hops,
)

LOOKUP = torch.tensor([[6, 2]])
"""Token 2 leads to 3 in the middle, and that to 5."""

REPEATED = torch.tensor([[7, 1, 4, 6, 1]])
"""1 was followed by 4."""


def paths(graph: Graph) -> set[tuple[str, str]]:
    """The edges that carry more than rounding."""
    ids = [node.id for node in graph.nodes]
    weights = graph.weights.abs()
    strong = weights > 1e-4 * float(weights.max())
    edges = zip(graph.sources[strong].tolist(), graph.targets[strong].tolist(), strict=True)
    return {(ids[s], ids[t]) for s, t in edges}


def steps() -> tuple[Graph, list[Dictionary]]:
    model = two_hops()
    found = [transcoder(model, 0, TOKEN, LOOKUP), transcoder(model, 1, MIDDLE, LOOKUP)]
    return trace(model, LOOKUP, found, max_n_logits=1), found


def test_a_lookup_of_two_hops_is_found_and_nothing_else() -> None:
    assert int(two_hops()(LOOKUP)[0, -1].argmax()) == 5
    graph, _ = steps()
    (logit,) = graph.logit_targets
    assert logit == 5
    path = {("E_2_1", "0_2_1"), ("0_2_1", "1_3_1"), ("1_3_1", f"3_{logit}_1")}
    assert paths(graph) == path
    assert paths(graph.prune()) == path
    assert graph.completeness == pytest.approx(1.0, abs=1e-4)
    assert graph.replacement == pytest.approx(1.0, abs=1e-4)


def test_induction_is_found_and_nothing_else() -> None:
    model = induction()
    logits = model(REPEATED)[0, -1]
    assert int(logits.argmax()) == 4
    pattern = model.run_with_cache(REPEATED, "blocks.1.attn.hook_pattern")[1]
    assert float(pattern["blocks.1.attn.hook_pattern"][0, 0, 4, 2]) > 0.999
    graph = trace(model, REPEATED, [transcoder(model, 1, COPIED, REPEATED)], max_n_logits=1)
    # Features at positions that the last one does not look at lead nowhere.
    assert paths(graph.prune(1.0, 1.0)) == {("E_4_2", "1_4_4"), ("1_4_4", "3_4_4")}


def test_a_transcoder_that_skips_a_step_is_told_by_its_effects_alone() -> None:
    """Its graph is as complete; ablations of it do twice what it predicts, or more."""
    _, found = steps()
    model = two_hops()
    faithful = trace(model, LOOKUP, cross_layer(found, skips=False), max_n_logits=1)
    skipping = trace(model, LOOKUP, cross_layer(found, skips=True), max_n_logits=1)
    assert paths(faithful) == {("E_2_1", "0_2_1"), ("0_2_1", "1_3_1"), ("1_3_1", "3_5_1")}
    assert paths(skipping) == {("E_2_1", "0_2_1"), ("0_2_1", "3_5_1")}
    for graph in (faithful, skipping):
        assert graph.completeness == pytest.approx(1.0, abs=1e-4)
        assert graph.replacement == pytest.approx(1.0, abs=1e-4)
    good, bad = faithfulness(faithful), faithfulness(skipping)
    assert good.slope == pytest.approx(1.0, abs=0.1)
    assert 1.9 < bad.slope < 2.6  # the final norm, no longer frozen, adds to it
    assert bad.relative_error > 5 * good.relative_error
    later = faithfulness(faithful, from_layer=1)
    assert later.node_ids == tuple(id for id in good.node_ids if id.startswith("1_"))
    assert (good.divergences > 0).all()
    assert torch.equal(later.divergences, good.divergences[[id[0] == "1" for id in good.node_ids]])
    assert later.measured.tolist() == [
        x for id, x in zip(good.node_ids, good.measured.tolist(), strict=True) if id[0] == "1"
    ]
    with pytest.raises(ValueError, match="no features from layer 2 on"):
        faithfulness(faithful, from_layer=2)


def test_spearman() -> None:
    x = torch.tensor([3.0, 1.0, 2.0, 2.0])
    assert spearman(x, x.exp()) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    # Pearson's of the ranks 4, 1, 2.5, 2.5 and 4, 1, 2, 3.
    assert spearman(x, torch.tensor([4.0, 1.0, 2.0, 3.0])) == pytest.approx(0.9486832980505138)
