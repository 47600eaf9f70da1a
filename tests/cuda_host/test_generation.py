"""Generation on the CUDA kernels: the sampler runs where logits are, and draws the CPU's tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.interp.monitors import Monitor
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.cuda_host import host_library, host_model, threads_in_order
from support.random_models import CONFIGS, random_checkpoint
from support.random_probes import random_probe

PROMPTS = [[5, 17, 200, 3], [250, 1], [9]]
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"logprobs": 2, "stop": [7, 11], "min_new_tokens": 3},
    "narrowed": {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.001, "n": 2},
    "joint": {"temperature": 0.8, "top_p": 0.7, "top_k": 9, "filter_apply_order": "joint"},
    "typical": {"temperature": 1.0, "typical_p": 0.5, "logprobs": 0},
    "edited": {
        "temperature": 1.0,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.5,
        "no_repeat_ngram_size": 2,
        "logit_bias": {3: 4.0},
        "logprobs": 5,
    },
}


@pytest.fixture(scope="module")
def models() -> tuple[HookedTransformer, HookedTransformer]:
    config = CONFIGS["qwen2"]
    checkpoint = random_checkpoint("qwen2", n_layers=1, layers=config.layers[:1])
    return host_model(checkpoint, "fp32"), load(checkpoint)


@pytest.mark.parametrize("name", OPTIONS)
def test_tokens_and_logprobs(
    models: tuple[HookedTransformer, HookedTransformer], name: str
) -> None:
    before = host_library().launches()
    with threads_in_order("7"):
        found, wanted = (
            m.generate(PROMPTS, max_new_tokens=5, seed=3, **OPTIONS[name]) for m in models
        )
    after = host_library().launches()
    assert found.tokens.cpu().tolist() == wanted.tokens.tolist()
    for kept in ("logprobs", "top_ids", "top_logprobs"):
        ours, theirs = getattr(found, kept), getattr(wanted, kept)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.numpy().tobytes() == theirs.numpy().tobytes()
    assert after["sample"] >= before["sample"] + 5
    assert (after["sample_edit"] > before["sample_edit"]) == (name in ("greedy", "edited"))


def test_logits_that_are_not_numbers_end_a_row_as_on_the_cpu(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    def spoil(logits: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.full_like(logits, float("nan"))

    texts = []
    for model in models:
        with model.hooks([("unembed.hook_out", spoil)]), pytest.raises(ValueError) as error:
            model.generate(PROMPTS, max_new_tokens=2)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_another_seed_draws_other_tokens(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    drawn = [models[0].generate(PROMPTS, max_new_tokens=5, temperature=1.0, seed=s) for s in (1, 2)]
    assert drawn[0].tokens.tolist() != drawn[1].tokens.tolist()


def test_monitors_see_what_the_cpus_see(
    models: tuple[HookedTransformer, HookedTransformer],
) -> None:
    seen = []
    for model in models:
        probe = random_probe(model, "blocks.0.hook_resid_post")
        monitor = Monitor(probe, threshold=0.0, on_alarm="flag")
        out = model.generate(PROMPTS, max_new_tokens=3, monitors=[monitor])
        seen.append((out.scores, out.alarms))
    (ours, our_alarms), (theirs, their_alarms) = seen
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].numpy().tobytes() == theirs[name].numpy().tobytes()
    assert [(a.row, a.position, a.score) for a in our_alarms] == [
        (a.row, a.position, a.score) for a in their_alarms
    ]
    assert their_alarms
