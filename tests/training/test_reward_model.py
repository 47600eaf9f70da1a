"""Reward models: the head reads the last real token, gradients, and a planted preference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.hooks.registry import same_bits
from bitlens.model.training import RewardModel, TrainConfig, load_weights, train
from bitlens.model.training.reward_model import HEAD
from support.training_models import small_checkpoint, small_model

U = 2.0**-24
PAIRS = [
    {"prompt": f"{i}?", "chosen": f"{i}{j} yes", "rejected": f"{j}{i} not"}
    for i in range(5)
    for j in range(5)
]
SETTINGS = {"method": "rm", "steps": 8, "batch_size": 4, "lr": 3e-3, "held_out": 6}


def _scored(model: RewardModel) -> RewardModel:
    """Its head made of numbers that are not 0."""
    weights = model.model.trained
    assert weights is not None
    head = weights.values[HEAD]
    head.copy_(torch.linspace(-1, 1, head.numel())[None])
    weights.rewrite()
    return model


def test_padding_is_not_read() -> None:
    model = _scored(RewardModel(small_model()))
    tokens = torch.tensor([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = model.scores(tokens, mask)
    left = model.scores(tokens[:1].roll(2, 1), mask[:1].roll(2, 1))
    assert same_bits(found[:1].detach(), left.detach())
    assert same_bits(found[:1].detach(), model.scores(tokens[:1, :3]).detach())
    other = model.scores(torch.tensor([[5, 6, 7, 9, 9]]))
    assert not same_bits(found[:1].detach(), other.detach())


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_gradients_are_near_fp64s(trainable: Any) -> None:
    model = _scored(RewardModel(small_model("qwen3", trainable=trainable)))
    weights = model.model.trained
    assert weights is not None
    tokens = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]])
    (model.scores(tokens) * torch.tensor([1.0, -2.0])).sum().backward()
    double = bitlens.load(small_checkpoint("qwen3"), dtype="fp64", backend="torch")
    with double.hooks([("ln_final.hook_normalized", lambda x, hook: seen.append(x))]):
        seen: list[torch.Tensor] = []
        double(tokens)
    x_Bd = seen[0][:, -1] * double.ln_final.weight
    (x_Bd @ weights.values[HEAD][0].double() * torch.tensor([1.0, -2.0])).sum().backward()
    exact = (x_Bd.detach() * torch.tensor([[1.0], [-2.0]])).sum(0)
    gradients = weights.gradients()
    assert (gradients[HEAD][0] - exact).norm() <= 300 * U * exact.norm()
    if trainable == "full":
        for name, gradient in gradients.items():
            address, _, kind = name.rpartition(".")
            modules = {getattr(m, "address", "embed"): m for m in double.modules()}
            modules["embed"] = double.embed
            if name != HEAD:
                truth = getattr(modules[address], kind).grad
                assert (gradient - truth).norm() <= 300 * U * truth.norm(), name


@pytest.mark.parametrize("trainable", ["full", pytest.param("lora", marks=pytest.mark.nightly)])
def test_a_planted_preference_is_learnt(tmp_path: Path, trainable: Any) -> None:
    config = TrainConfig(
        **{**SETTINGS, "centering": 0.01, "lr": 3e-3 if trainable == "full" else 3e-2}
    )
    whole = train(small_model(trainable=trainable), config, data=PAIRS, output=tmp_path / "a")
    assert whole.before["held_out_accuracy"] == 0.5
    assert whole.after["held_out_accuracy"] == 1.0
    assert whole.after["held_out_longer_is_chosen"] == 0.5
    cut = TrainConfig(**{**config.to_dict(), "microbatch_size": 1})
    bitlens.set_num_threads(2)
    other = train(small_model(trainable=trainable), cut, data=PAIRS, output=tmp_path / "b")
    assert other.weights_digest == whole.weights_digest
    again = RewardModel(small_model(trainable=trainable))
    assert again.model.trained is not None
    load_weights(again.model.trained, whole.checkpoint)
    yes, no = (
        again.scores(torch.tensor([list(text.encode())])) for text in ("1?11 yes", "1?11 not")
    )
    assert yes > no


def test_margins_and_models_are_checked() -> None:
    with pytest.raises(ValueError, match=r"reward\.weight: load the model with"):
        RewardModel(small_model(trainable=None))
    with pytest.raises(ValueError, match="centering = -1"):
        TrainConfig(**{**SETTINGS, "centering": -1.0})
