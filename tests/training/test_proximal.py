"""PPO: the task that GRPO learns, a critic that knows values, and rounds that nothing cuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.scores import logprobs_and_values
from bitlens.model.training import TrainConfig, TrainRun, advantages, rollout, train
from bitlens.model.training.head import trained_head
from bitlens.model.training.proximal import HEAD
from support.training_models import small_model

ROWS = [{"prompt": text} for text in ("x", "why", "0 1 2")]
SETTINGS = {
    "method": "ppo",
    "steps": 6,
    "batch_size": 2,
    "samples": 8,
    "max_new_tokens": 6,
    "lr": 1e-2,
    "beta": 0.0,
    "schedule": "constant",
    "updates": 2,
}


def _letters(*, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """The part of an answer's characters that are lower-case letters: about a tenth by chance."""
    return [sum("a" <= c <= "z" for c in text) / 6 for text in completions]


def _run(folder: Path, model: Any = None, reward: Any = _letters, **changes: Any) -> TrainRun:
    model = small_model() if model is None else model
    options = {"progress": changes.pop("progress", None)}
    config = TrainConfig(**{**SETTINGS, **changes})
    return train(model, config, data=ROWS, output=folder, reward=reward, **options)


def test_the_planted_task_is_learnt(tmp_path: Path) -> None:
    run = _run(tmp_path, steps=60, held_out=1)
    rewards = [line["reward"] for line in run.metrics]
    assert sum(rewards[:4]) / 4 < 0.3
    assert sum(rewards[-4:]) / 4 > 0.8
    assert run.after["held_out_reward"] > run.before["held_out_reward"]
    moved = [line["moved"] for line in run.metrics]
    assert set(moved[::2]) == {0.0}
    assert min(moved[1::2]) > 0.0
    digests = [line["policy_digest"] for line in run.metrics]
    assert digests[::2] == digests[1::2]
    assert len(set(digests)) == 30


def test_cuts_and_threads_move_no_bit(tmp_path: Path) -> None:
    bitlens.set_num_threads(1)
    whole = _run(tmp_path / "a", beta=0.05)
    bitlens.set_num_threads(2)
    other = _run(tmp_path / "b", beta=0.05, microbatch_size=1)
    assert whole.weights_digest == other.weights_digest
    assert _run(tmp_path / "c", beta=0.05, seed=1).weights_digest != whole.weights_digest


class _Stopped(Exception):
    pass


def test_a_run_goes_on_from_where_a_batch_of_answers_begins(tmp_path: Path) -> None:
    settings = {"updates": 3, "checkpoint_every": 2, "steps": 10}
    whole = _run(tmp_path / "whole", **settings)

    def stop(step: int, steps: int, line: dict[str, Any]) -> None:
        if step == 5:
            raise _Stopped

    with pytest.raises(_Stopped):
        _run(tmp_path / "cut", **settings, progress=stop)
    steps: list[int] = []
    cut = _run(tmp_path / "cut", **settings, progress=lambda step, *_: steps.append(step))
    assert steps[0] == 4
    assert cut.weights_digest == whole.weights_digest


def test_log_probabilities_beside_values_are_those_that_answered() -> None:
    model = small_model()
    head = trained_head(model, HEAD)
    assert model.trained is not None
    values = model.trained.values[HEAD]
    values.copy_(torch.linspace(-1, 1, values.numel()).view_as(values))
    model.trained.rewrite()
    found = rollout(model, ["why", "0 1 2 3"], n=3, max_new_tokens=5, seed=4)
    batch = found.tokens, found.attention_mask, found.sampled
    logprobs, critic = logprobs_and_values(model.forward_pass, *batch, 1.0, head)
    assert torch.equal(logprobs[found.sampled], found.logprobs[found.sampled])
    _, cache = model.run_with_cache(found.tokens, attention_mask=found.attention_mask)
    before = cache["ln_final.hook_normalized"] * model.trained.values["ln_final.weight"]
    exact = (before.double() @ values[0].double())[:, :-1]
    there = found.sampled[:, 1:]
    bound = (before.abs().double() @ values[0].abs().double())[:, :-1] * 64 * 2.0**-24
    assert bool(((critic[:, 1:].double() - exact).abs() <= bound)[there].all())
    assert not bool(critic[~found.sampled].any())


def test_the_critic_learns_what_answers_are_worth(tmp_path: Path) -> None:
    model = small_model()
    _run(tmp_path, model, lambda **columns: [2.0] * len(columns["prompts"]), steps=30,
         value_weight=1.0)  # fmt: skip
    found = rollout(model, ["x"], n=8, max_new_tokens=6, seed=4)
    batch = found.tokens, found.attention_mask, found.sampled
    head = trained_head(model, HEAD)
    with torch.no_grad():
        _, critic = logprobs_and_values(model.forward_pass, *batch, 1.0, head)
    assert 1.5 < float(critic[found.sampled].mean()) < 2.5


def test_advantages_are_whitened_over_sampled_tokens() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    scored = torch.tensor([[True, True, False, False]] * 3)
    found = advantages.whitened(x, scored)
    assert not bool(found[~scored].any())
    np.testing.assert_allclose(found[scored].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(found[scored].std(correction=0), 1, rtol=1e-6)
    assert not bool(advantages.whitened(torch.ones(3, 4), scored).any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": 0}, "updates = 0"),
        ({"method": "grpo"}, "updates = 2: method 'grpo' takes one"),
        ({"gae_lambda": 1.5}, r"gae_lambda = 1\.5"),
        ({"value_weight": -1.0}, r"value_weight = -1\.0"),
        ({"max_kl": 0.1}, "max_kl: is watched"),
    ],
    ids=str,
)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{**SETTINGS, **change})


def test_checkpoints_fall_between_batches_of_answers() -> None:
    config = TrainConfig(**{**SETTINGS, "steps": 40, "updates": 4, "checkpoint_every": 10})
    assert [step for step in range(1, 41) if config.writes_checkpoint(step)] == [12, 20, 32]
    plain = TrainConfig(method="sft", steps=7, checkpoint_every=3)
    assert [step for step in range(1, 8) if plain.writes_checkpoint(step)] == [3, 6]


def test_a_model_that_changes_after_it_answered_is_found_out(tmp_path: Path) -> None:
    model = small_model()
    assert model.trained is not None
    trained = model.trained

    def meddling(**columns: Any) -> list[float]:
        trained.values["ln_final.weight"].mul_(1.01)
        trained.rewrite()
        return _letters(**columns)

    with pytest.raises(RuntimeError, match="not the one that answered"):
        _run(tmp_path, model, meddling, steps=1)
