"""GRPO and RLOO on a planted task, and what stops them from learning nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bitlens
import pytest
from bitlens.model.training import TrainConfig, TrainRun, train
from support.training_models import small_model

ROWS = [{"prompt": text, "wanted": "a"} for text in ("x", "why", "0 1 2")]
SETTINGS = {
    "method": "grpo",
    "steps": 40,
    "batch_size": 2,
    "samples": 8,
    "max_new_tokens": 6,
    "lr": 1e-2,
    "schedule": "constant",
}


def _letters(
    *, prompts: Sequence[str], completions: Sequence[str], wanted: Sequence[str]
) -> list[float]:
    """The part of an answer's characters that are lower-case letters: about a tenth by chance."""
    assert len(prompts) == len(completions) == len(wanted)
    assert set(wanted) == {"a"}
    return [sum("a" <= c <= "z" for c in text) / 6 for text in completions]


def _run(folder: Path, reward: Any = _letters, model: Any = None, **changes: Any) -> TrainRun:
    model = small_model() if model is None else model
    config = TrainConfig(**{**SETTINGS, **changes})
    return train(model, config, data=ROWS, output=folder, reward=reward)


@pytest.mark.parametrize("method", ["grpo", pytest.param("rloo", marks=pytest.mark.nightly)])
def test_the_planted_task_is_learnt(tmp_path: Path, method: str) -> None:
    run = _run(tmp_path, method=method, held_out=1)
    rewards = [line["reward"] for line in run.metrics]
    assert sum(rewards[:3]) / 3 < 0.3
    assert sum(rewards[-3:]) / 3 > 0.8
    assert run.after["held_out_reward"] > run.before["held_out_reward"]
    assert all(line["logprob_gap"] == 0 for line in run.metrics)
    digests = [line["policy_digest"] for line in run.metrics]
    for line, old, new in zip(
        run.metrics, digests, [*digests[1:], run.weights_digest], strict=True
    ):
        assert (old == new) == line["skipped"]


def test_cuts_and_threads_move_no_bit(tmp_path: Path) -> None:
    bitlens.set_num_threads(1)
    whole = _run(tmp_path / "a", steps=4)
    bitlens.set_num_threads(2)
    other = _run(tmp_path / "b", steps=4, microbatch_size=1)
    assert whole.weights_digest == other.weights_digest
    assert _run(tmp_path / "c", steps=4, seed=1).weights_digest != whole.weights_digest


def test_a_policy_too_far_from_the_first_one_ends_the_run(tmp_path: Path) -> None:
    run = _run(tmp_path, beta=0.01, max_kl=0.02)
    assert run.stopped == "kl"
    assert run.metrics[0]["kl"] == 0.0
    assert run.metrics[-1]["kl"] > 0.02
    assert len(run.metrics) < SETTINGS["steps"]


def test_groups_without_spread_move_nothing(tmp_path: Path) -> None:
    model = small_model()
    before = model.fingerprint()
    run = _run(tmp_path, lambda **columns: [1.0] * len(columns["prompts"]), model, steps=2)
    assert model.fingerprint() == before
    assert [line["skipped"] for line in run.metrics] == [True, True]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda **columns: [float("nan")] * len(columns["prompts"]), "reward: nan for the"),
        (lambda **_: [1.0], "reward: 1 numbers for 16 completions"),
    ],
    ids=["NaN", "too few"],
)
def test_a_reward_that_is_none_is_refused(tmp_path: Path, reward: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _run(tmp_path, reward, steps=1)


def test_a_model_that_changes_after_it_answered_is_found_out(tmp_path: Path) -> None:
    model = small_model()
    assert model.trained is not None
    trained = model.trained

    def meddling(**columns: Any) -> list[float]:
        trained.values["ln_final.weight"].mul_(1.01)
        trained.rewrite()
        return _letters(**columns)

    with pytest.raises(RuntimeError, match="not the one that answered"):
        _run(tmp_path, meddling, model, steps=1)


def test_a_prompt_beyond_the_context_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(**{**SETTINGS, "max_new_tokens": 100})
    data = [*ROWS, {"prompt": "p" * 60, "wanted": "a"}]
    with pytest.raises(ValueError, match="data, row 4: prompt: 60 tokens"):
        train(small_model(), config, data=data, output=tmp_path, reward=_letters)
