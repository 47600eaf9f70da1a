"""Ablations, one by one: what they change, and how that goes with what a graph says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from bitlens.interp import trace
from bitlens.interp.circuits.faithfulness import faithfulness, spearman
from bitlens.interp.circuits.set_features import edited_logits
from support.random_models import random_model
from support.random_transcoders import random_cross_layer


@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_effects_are_those_of_interventions(arch: str) -> None:
    """Gemma 2's soft cap is in the distribution, and not in the logits that are compared."""
    model = random_model(arch)
    tokens = torch.tensor([[7, 3, 1, 4, 1, 5, 9, 2]])
    graph = trace(model, tokens, random_cross_layer(model, "hook_mlp_in"))
    checked = faithfulness(graph, 6)
    assert graph.traced is not None
    assert len(checked.node_ids) == 6
    cap = model.config.final_logit_softcap

    def log_p(logits_V: torch.Tensor) -> torch.Tensor:
        x_V = logits_V.double()
        return (x_V if cap is None else cap * torch.tanh(x_V / cap)).log_softmax(0)

    before_V = log_p(graph.traced.frozen.logits())
    for i, id in enumerate(checked.node_ids):
        predicted, measured = graph.intervene({id: 0.0}, frozen=False)
        assert (predicted[0], measured[0]) == (checked.predicted[i], checked.measured[i])
        after_V = log_p(edited_logits(graph.traced, {graph.node(id): 0.0}))
        expected = F.kl_div(after_V, before_V, reduction="sum", log_target=True)
        # The cap is taken in fp32 there, whose roundings leave this much of a KL of any size.
        assert float(abs(checked.divergences[i] - expected)) <= 2**-22 * float(expected) ** 0.5
    influence = graph.influence[[graph.index[id] for id in checked.node_ids]]
    assert checked.influence_spearman == spearman(influence, checked.divergences)
    assert checked.spearman == spearman(checked.predicted, checked.measured)
