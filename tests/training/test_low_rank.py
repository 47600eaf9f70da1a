"""Low-rank adapters: the same forward at first, gradients, runs, and what merging makes of them."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
from bitlens.model.hooks.registry import same_bits
from bitlens.model.training import LowRank, TrainConfig, rollout, train
from bitlens.model.transformer import HookedTransformer
from support.random_models import CONFIGS
from support.training_models import PAIRS, SUMS, small_checkpoint, small_model

U = 2.0**-24
TOKENS = torch.arange(1, 12).repeat(3, 1) * torch.tensor([[3], [5], [7]])
SMALL = LowRank(rank=3, alpha=6.0)


def _adapted(architecture: str = "llama", **options: Any) -> HookedTransformer:
    """A model whose adapters do something."""
    model = small_model(architecture, trainable=SMALL, **options)
    assert model.trained is not None
    generator = torch.Generator().manual_seed(2)
    for name, x in model.trained.values.items():
        if name.endswith("lora_b"):
            x.copy_(torch.randn(x.shape, generator=generator) * 0.05)
    model.trained.rewrite()
    return model


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "bf16_weights"])
def test_it_begins_as_the_model_that_was_loaded(dtype: str) -> None:
    model, plain = (
        small_model("qwen2", dtype=dtype, trainable="lora"),
        small_model("qwen2", dtype=dtype),
    )
    assert model.fingerprint() == plain.fingerprint()
    found, truth = model.logprobs(TOKENS).detach(), plain.logprobs(TOKENS).detach()
    assert same_bits(found, truth)
    assert not same_bits(_adapted("qwen2", dtype=dtype).logprobs(TOKENS).detach(), truth)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_gradients_are_near_those_of_the_merged_matrix(architecture: str) -> None:
    """dA = s B^T dW and dB = s dW A^T, dW by fp64 autograd of W + s B A."""
    model = _adapted(architecture)
    assert model.trained is not None
    double = bitlens.load(model.trained.checkpoint(), dtype="fp64", backend="torch")
    for each in (model, double):
        (each.logprobs(TOKENS) * torch.linspace(0.5, 2, 11)).sum().backward()
    modules = {getattr(module, "address", ""): module for module in double.modules()}
    gradients = model.trained.gradients()
    assert gradients.keys() == model.trained.values.keys()
    for name, found in gradients.items():
        address, _, kind = name.rpartition(".")
        a, b = (model.trained.values[f"{address}.{n}"].double() for n in ("lora_a", "lora_b"))
        slope = modules[address].weight.grad
        truth = 2.0 * (b.T @ slope if kind == "lora_a" else slope @ a.T)
        assert (found.double() - truth).norm() <= 600 * U * truth.norm(), name


def test_cuts_threads_and_recomputation_move_no_bit() -> None:
    model = _adapted()
    assert model.trained is not None
    found = []
    for threads, cuts in ((1, (0, 3)), (2, (0, 1, 2, 3)), (2, (0, 2, 3))):
        bitlens.set_num_threads(threads)
        model.trained.clear_gradients()
        for first, last in itertools.pairwise(cuts):
            model.logprobs(TOKENS[first:last]).sum().backward()
        found.append(model.trained.gradients())
        model.gradient_checkpointing_enable()
    for other in found[1:]:
        assert all(same_bits(other[name], x) for name, x in found[0].items())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rollouts_have_the_bits_of_training(dtype: str) -> None:
    model = _adapted(dtype=dtype)
    answers = rollout(model, ["a", "some longer prompt"], n=3, max_new_tokens=10, seed=1)
    kept = answers.sampled
    found = model.logprobs(answers.tokens, answers.attention_mask, scored=kept)
    assert same_bits(found.detach()[kept], answers.logprobs[kept])


def test_merging_is_another_model_nearby() -> None:
    model = _adapted()
    assert model.trained is not None
    merged = bitlens.load(model.trained.checkpoint())
    found, other = model.logprobs(TOKENS).detach(), merged.logprobs(TOKENS)
    assert 0 < (found - other).abs().max() < 1e-4
    assert merged.fingerprint() != model.fingerprint()
    assert merged.fingerprint() != bitlens.load(small_checkpoint()).fingerprint()


@pytest.mark.parametrize("method", ["sft", pytest.param("dpo", marks=pytest.mark.nightly)])
def test_runs_learn_and_resume(tmp_path: Path, method: str) -> None:
    settings = {"method": method, "steps": 12, "batch_size": 6, "lr": 1e-2, "checkpoint_every": 4}
    config = TrainConfig(**{**settings, "held_out": 4})
    data = SUMS if method == "sft" else PAIRS

    def run(folder: str, stop: int = 0, **options: Any) -> Any:
        def progress(step: int, *_: Any) -> None:
            if step == stop:
                raise KeyboardInterrupt

        model = small_model(trainable=SMALL, **options)
        output = tmp_path / folder
        return train(model, config, data=data, output=output, progress=progress), model

    whole, model = run("whole")
    assert whole.after["held_out_loss"] < whole.before["held_out_loss"]
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop=6)
    cut, _ = run("cut")
    assert cut.weights_digest == whole.weights_digest == model.fingerprint()
    assert sum(x.numel() for x in model.trained.values.values()) < 0.3 * model.n_parameters()


def test_what_adapters_cannot_do_is_refused() -> None:
    model = _adapted()
    with pytest.raises(ValueError, match="has a low-rank adapter"):
        _ = model.W_Q
    for how in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="weights under training stay here"):
            how(model)  # type: ignore[operator]
    with pytest.raises(ValueError, match="rank = 0"):
        LowRank(rank=0)
    with pytest.raises(ValueError, match="alpha = -1"):
        LowRank(alpha=-1.0)
