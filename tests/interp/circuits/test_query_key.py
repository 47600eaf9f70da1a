"""Why a head attends: pairs of parts sum to the model's own score, and name what was planted."""

from __future__ import annotations

import pytest
import torch
from bitlens.interp import trace
from bitlens.interp.circuits import query_key
from support.planted_models import COPIED, induction, transcoder
from support.random_models import CONFIGS, random_model
from support.random_transcoders import random_cross_layer, random_set

TOKENS = torch.tensor([[7, 3, 1, 4, 1, 5, 9, 2]])


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_pairs_sum_to_the_score(name: str) -> None:
    """The model's hook_attn_scores; head norms, windows and biases included."""
    model = random_model(name, changes={"attn_logit_softcap": None})
    cross = name in ("llama", "gemma3")
    dictionaries = (
        random_cross_layer(model, write="mlp.hook_out")
        if cross
        else random_set(model, write="mlp.hook_out")
    )
    graph = trace(model, TOKENS, dictionaries, max_feature_nodes=5)
    for layer, head, query, key in ((2, 1, 7, 5), (2, 0, 6, 6), (0, 2, 3, 2)):
        hook = f"blocks.{layer}.attn.hook_attn_scores"
        expected = float(model.run_with_cache(TOKENS, hook)[1][hook][0, head, query, key])
        found = query_key(graph, layer, head, query, key)
        size = float(found.weights.double().abs().sum())
        assert abs(found.score - expected) < 1e-5 * size
        largest = float(found.weights.abs().max())
        assert largest > 1e-3 * size  # so one pair left out would show
        assert len(set(found.query_parts)) == len(found.query_parts)
        assert found.weights.shape == (len(found.query_parts), len(found.key_parts))


def test_induction_attends_for_the_token_and_the_one_before() -> None:
    model, prompt = induction(), torch.tensor([[7, 1, 4, 6, 1]])
    graph = trace(model, prompt, [transcoder(model, 1, COPIED, prompt)], max_n_logits=1)
    found = query_key(graph, 1, 0, 4, 2)
    ((query, key, weight),) = found.strongest(1)
    assert (query, key) == ("E_1_4", "attention_0_2")  # it is 1; what stands before it was 1
    assert weight == pytest.approx(found.score, rel=1e-4)


def test_places_that_are_none() -> None:
    model = random_model("mistral")
    graph = trace(model, TOKENS, random_set(model), max_feature_nodes=5)
    for place in ((3, 0, 1, 1), (0, 9, 1, 1), (0, 0, 8, 1), (0, 0, 1, 2), (0, 0, 7, 1)):
        with pytest.raises(ValueError, match=r"expected 0 to|does not look"):
            query_key(graph, *place)
