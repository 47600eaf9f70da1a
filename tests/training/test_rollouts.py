"""Sampled tokens have, in training's forward pass, the log-probabilities of their sampling."""

from __future__ import annotations

from pathlib import Path

import bitlens
import pytest
import torch
from bitlens.model.training import Rollouts, rollout
from bitlens.model.transformer import HookedTransformer
from support.random_models import CONFIGS
from support.training_models import small_checkpoint, small_model

PROMPTS = ["a", "some longer prompt", "mid", "0123456789" * 3]
OPTIONS = {"n": 2, "max_new_tokens": 12, "temperature": 0.8, "seed": 4}


def _gap(model: HookedTransformer, found: Rollouts, rows: slice = slice(None)) -> float:
    """The largest difference between the two log-probabilities of a token."""
    sampled = found.sampled[rows]
    logprobs = model.logprobs(
        found.tokens[rows], found.attention_mask[rows], scored=sampled, temperature=0.8
    )
    assert logprobs.requires_grad == torch.is_grad_enabled()
    return float((logprobs.detach() - found.logprobs[rows])[sampled].abs().max())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_log_probabilities_are_equal_in_every_bit(architecture: str, dtype: str) -> None:
    model = small_model(architecture, dtype=dtype)
    bitlens.set_num_threads(2)
    found = rollout(model, PROMPTS, **OPTIONS)
    assert int(found.sampled.sum()) > 50
    assert _gap(model, found) == 0.0
    bitlens.set_num_threads(1)
    assert all(_gap(model, found, slice(i, i + 3)) == 0.0 for i in (0, 3, 5))


def test_batches_and_padding_move_no_answer() -> None:
    model = small_model()
    together = rollout(model, PROMPTS, **OPTIONS)
    for i, prompt in enumerate(PROMPTS):
        alone = rollout(model, [prompt], **OPTIONS)
        assert alone.text == together.text[2 * i : 2 * i + 2]
        mine = together.logprobs[2 * i : 2 * i + 2]
        assert torch.equal(alone.logprobs[alone.sampled], mine[~mine.isnan()])
    right = torch.full_like(together.tokens, 9)
    mask, logprobs = torch.zeros_like(right), torch.full_like(together.logprobs, torch.nan)
    for row, real in enumerate(together.attention_mask.bool()):
        n = int(real.sum())
        right[row, :n], mask[row, :n] = together.tokens[row, real], 1
        logprobs[row, :n] = together.logprobs[row, real]
    scored = ~logprobs.isnan()
    found = model.logprobs(right, mask, scored=scored, temperature=0.8)
    assert torch.equal(found.detach()[scored], logprobs[scored])


def test_bf16_answers_under_an_fp32_trainer_differ() -> None:
    """The control: two engines in one."""
    found = rollout(small_model(dtype="bf16"), PROMPTS, **OPTIONS)
    assert 1e-5 < _gap(small_model(), found) < 1.0


def test_a_rollout_names_its_policy() -> None:
    model = small_model()
    assert model.trained is not None
    first = rollout(model, ["a"], seed=1, max_new_tokens=3)
    assert first.policy_digest == bitlens.load(small_checkpoint()).fingerprint()
    model.trained.values["ln_final.weight"][0] += 1
    model.trained.rewrite()
    second = rollout(model, ["a"], seed=1, max_new_tokens=3)
    assert second.policy_digest != first.policy_digest
    assert first.log_kept[first.sampled].eq(0).all()
    assert first.log_kept[~first.sampled].isnan().all()


def test_what_cannot_be_a_rollout_is_refused() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="temperature = 0"):
        rollout(model, ["a"], seed=1, temperature=0.0)
    with pytest.raises(ValueError, match="context"):
        rollout(model, ["a" * 120], seed=1, max_new_tokens=20)
    hooks = [("hook_embed", lambda x, hook: x * 2)]
    with model.hooks(hooks), pytest.raises(ValueError, match="hooks or overrides"):
        rollout(model, ["a"], seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "bf16_weights"])
def test_smollm2s_log_probabilities_are_equal_in_every_bit(smollm2_path: Path, dtype: str) -> None:
    model = bitlens.load(smollm2_path, dtype=dtype, trainable="full")
    prompts = [f"Chapter {i}. Once upon a time, in a land" for i in range(8)]
    found = rollout(model, prompts, n=4, max_new_tokens=16, temperature=0.8, seed=1)
    assert int(found.sampled.sum()) > 200
    with torch.no_grad():
        assert _gap(model, found) == 0.0
    bitlens.set_num_threads(1)
    assert _gap(model, found, slice(5, 8)) == 0.0
