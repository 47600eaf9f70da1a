"""Runs: what they learn, and that neither cuts, threads nor interruptions move a bit of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.training import TrainConfig, TrainRun, load_weights, train
from safetensors.torch import save_file
from support.training_models import PAIRS, SUMS, small_model

SFT = {"method": "sft", "steps": 8, "batch_size": 6, "lr": 3e-3, "schedule": "cosine"}
DPO = {"method": "dpo", "steps": 6, "batch_size": 6, "lr": 1e-3, "held_out": 4}
TIMING = ("seconds", "tokens_per_s")


def _run(folder: Path, settings: dict[str, Any], model: Any = None, **options: Any) -> TrainRun:
    data = PAIRS if settings["method"] == "dpo" else SUMS
    model = small_model() if model is None else model
    config = TrainConfig(**settings)
    return train(model, config, output=folder, **{"data": data, **options})


def _lines(run: TrainRun) -> list[dict[str, Any]]:
    return [{n: x for n, x in line.items() if n not in TIMING} for line in run.metrics]


def test_sft_learns_what_was_held_out(tmp_path: Path) -> None:
    seen: list[int] = []
    run = _run(
        tmp_path,
        {**SFT, "steps": 40, "held_out": 4, "warm_up": 0.1, "weight_decay": 0.01},
        evaluate=lambda model: {"params": float(model.n_parameters())},
        progress=lambda step, steps, line: seen.append(step),
    )
    assert run.after["held_out_loss"] < 0.8 * run.before["held_out_loss"]
    assert run.metrics[-1]["loss"] < 0.5 * run.metrics[0]["loss"]
    assert run.after["params"] == run.before["params"] > 0
    assert seen == list(range(1, 41))
    assert run.stopped == "steps"
    assert run.metrics[0]["lr"] < run.metrics[3]["lr"] > run.metrics[-1]["lr"]


@pytest.mark.parametrize("settings", [SFT, DPO], ids=["sft", "dpo"])
def test_microbatches_threads_and_recomputation_move_no_bit(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**settings, "steps": 4}
    bitlens.set_num_threads(1)
    whole = _run(tmp_path / "whole", settings)
    bitlens.set_num_threads(2)
    for size in (1, 4):
        other = _run(
            tmp_path / str(size), {**settings, "microbatch_size": size, "recompute": size == 4}
        )
        assert other.weights_digest == whole.weights_digest
        assert _lines(other) == _lines(whole)
        assert other.after == whole.after
    assert _run(tmp_path / "seed", {**settings, "seed": 1}).weights_digest != whole.weights_digest


class _Stopped(Exception):
    pass


def _stop_at(last: int) -> Any:
    def progress(step: int, steps: int, line: dict[str, Any]) -> None:
        if step == last:
            raise _Stopped

    return progress


@pytest.mark.parametrize("settings", [SFT, DPO], ids=["sft", "dpo"])
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**settings, "checkpoint_every": 2}
    whole = _run(tmp_path / "whole", settings)
    for last in (1, 2, 5):
        with pytest.raises(_Stopped):
            _run(tmp_path / "cut", settings, progress=_stop_at(last))
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    cut = _run(tmp_path / "cut", settings)
    assert (cut.weights_digest, _lines(cut)) == (whole.weights_digest, _lines(whole))
    assert cut.before == whole.before
    model = small_model()
    again = _run(tmp_path / "cut", settings, model)
    assert again.weights_digest == whole.weights_digest == model.fingerprint()
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_weights_go_into_another_copy(tmp_path: Path) -> None:
    run = _run(tmp_path, {**SFT, "steps": 2})
    model = small_model()
    assert model.trained is not None
    load_weights(model.trained, run.checkpoint)
    assert model.fingerprint() == run.weights_digest
    other = small_model("mistral")
    assert other.trained is not None
    with pytest.raises(ValueError, match="of another model"):
        load_weights(other.trained, run.checkpoint)
    run.checkpoint.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        load_weights(model.trained, run.checkpoint)


@pytest.mark.parametrize(
    "change", [{"preference": "ipo"}, {"by_length": True, "beta": 5.0}], ids=["ipo", "by length"]
)
def test_dpo_learns_which_answer_is_preferred(tmp_path: Path, change: dict[str, Any]) -> None:
    run = _run(tmp_path, {**DPO, **change, "steps": 12})
    assert run.before["held_out_accuracy"] == 0.5
    assert run.after["held_out_accuracy"] == 1.0


def test_labels_turn_a_preference_round(tmp_path: Path) -> None:
    data = [{**pair, "label": 0.0} for pair in PAIRS]
    run = _run(tmp_path, {**DPO, "steps": 12}, data=data)
    assert run.after["held_out_accuracy"] == 0.0


@pytest.mark.parametrize("dtype", ["bf16", "bf16_weights"])
def test_rounded_policies_train(tmp_path: Path, dtype: str) -> None:
    run = _run(tmp_path, {**SFT, "steps": 20, "held_out": 4}, small_model(dtype=dtype))
    assert run.after["held_out_loss"] < 0.8 * run.before["held_out_loss"]


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    _run(tmp_path, {**SFT, "steps": 2})
    with pytest.raises(ValueError, match="of a run with config"):
        _run(tmp_path, {**SFT, "steps": 3})
    with pytest.raises(ValueError, match="of a run with model"):
        _run(tmp_path, {**SFT, "steps": 2}, small_model("mistral"))
    with pytest.raises(ValueError, match="of a run with data"):
        _run(tmp_path, {**SFT, "steps": 2}, data=SUMS[1:])
    assert len(_run(tmp_path, {**SFT, "steps": 3}, resume=False).metrics) == 3


def test_a_gradient_that_is_not_finite_moves_nothing(tmp_path: Path) -> None:
    model = small_model()
    assert model.trained is not None
    model.trained.values["ln_final.weight"].fill_(3e38)
    model.trained.rewrite()
    before = {name: x.clone() for name, x in model.trained.values.items()}
    with pytest.raises(FloatingPointError, match="is not finite"):
        _run(tmp_path, SFT, model)
    assert all(torch.equal(x, before[name]) for name, x in model.trained.values.items())


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def full(tensors: Any, path: Any, metadata: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr("bitlens.model.weights.atomic.save_file", full)
    settings = {**SFT, "checkpoint_every": 2}
    with pytest.raises(OSError, match="No space left"):
        _run(tmp_path / "cut", settings)
    cut, whole = _run(tmp_path / "cut", settings), _run(tmp_path / "whole", settings)
    assert cut.weights_digest == whole.weights_digest


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='load the model with trainable="full"'):
        _run(tmp_path, SFT, small_model(trainable=None))
    with pytest.raises(ValueError, match="takes no reward"):
        _run(tmp_path, SFT, reward=lambda **_: [])
    with pytest.raises(ValueError, match="needs a reward"):
        _run(tmp_path, {**SFT, "method": "grpo"})
    with pytest.raises(ValueError, match="held_out = 20"):
        _run(tmp_path, {**SFT, "held_out": 20})
    for name, value in {
        "method": "ppo2",
        "steps": 0,
        "lr": -1.0,
        "warm_up": 1.0,
        "schedule": "step",
        "samples": 1,
        "max_kl": 0.1,
        "weight_decay": -1.0,
    }.items():
        with pytest.raises(ValueError, match=name):
            TrainConfig(**{**SFT, name: value})
    with pytest.raises(ValueError, match="stepz: no settings"):
        TrainConfig.from_dict({**SFT, "stepz": 1})
