"""Tokens that are named matter: without the tokens that add most, the model's score falls."""

from __future__ import annotations

import random

import bitlens
import pytest
import torch
from bitlens.interp.dictionaries import load_dictionary
from bitlens.interp.monitors.explain import explain
from bitlens.interp.probes import Probe
from bitlens.interp.probes.data import open_dataset
from bitlens.interp.probes.linear import LinearProbe
from bitlens.model import HookedTransformer
from bitlens.precision.statistics import clustered_mean

READ, ALARMS, LONGEST, DRAWS = 80, 30, 96, 3


def score(model: HookedTransformer, probe: Probe, ids: list[int]) -> float:
    x = model.run_with_cache(torch.tensor([ids]), probe.hook_name)[1][probe.hook_name]
    return float(probe.decision_function(x))


def without(ids: list[int], removed: set[int]) -> list[int]:
    return [token for i, token in enumerate(ids) if i not in removed]


@pytest.mark.nightly
def test_removing_the_named_tokens_lowers_the_score_more_than_random_ones(
    smollm2_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """The 30 highest scores of 80 responses that the probe was not trained on: a tenth of their
    tokens is removed, those that add most or random ones, and the model runs again."""
    model = bitlens.load("smollm2-135m-instruct")
    probe = Probe.load("harm", model)
    assert isinstance(probe, LinearProbe)
    dictionary = load_dictionary("smollm2-135m-instruct/blocks.15.hook_resid_post", model=model)
    seen = set(probe.metadata_["text_digests"])
    texts = [e.text for e in open_dataset("pyrit-objective") if e.digest()[:16] not in seen]
    assert model.tokenizer is not None
    ids = [model.tokenizer.encode(text)[:LONGEST] for text in texts[:READ]]
    ids = sorted((i for i in ids if len(i) >= 20), key=lambda i: -score(model, probe, i))[:ALARMS]
    draw, gaps, named_drops = random.Random(0), [], []
    for tokens in ids:
        x = model.run_with_cache(torch.tensor([tokens]), probe.hook_name)[1][probe.hook_name][0]
        found = explain(probe, dictionary, x)
        before, n = score(model, probe, tokens), len(tokens) // 10
        adding = [t for t, s in zip(found.tokens, found.token_shares, strict=True) if s > 0]
        named = before - score(model, probe, without(tokens, set(adding[:n])))
        others = [
            before
            - score(model, probe, without(tokens, set(draw.sample(range(1, len(tokens)), n))))
            for _ in range(DRAWS)
        ]
        named_drops.append(named)
        gaps.append(named - sum(others) / DRAWS)
    estimate = clustered_mean(gaps, range(len(gaps)))
    with capsys.disabled():
        print(f"named {sum(named_drops) / len(gaps):+.3f}, more than random: {estimate}")
    assert estimate.interval.low > 0
