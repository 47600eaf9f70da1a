"""SAELens's own training runner on our model, and what becomes of the SAE it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens import (
    SAE,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    StandardTrainingSAEConfig,
)
from support.random_models import BOS, byte_tokenizer, random_checkpoint
from support.sae_lens_cases import D_SAE, Subject, subject


@pytest.fixture(scope="module")
def small() -> Subject:
    checkpoint = random_checkpoint("llama", tokenizer=byte_tokenizer())
    return subject(checkpoint, 1, [BOS, 3, 1, 4, 1, 5, 9, 2])


def residual_stream(case: Subject) -> torch.Tensor:
    _, cache = case.ours.run_with_cache(case.tokens, names_filter=case.hook)
    found: torch.Tensor = cache[case.hook]
    return found


def latents(model: Any, sae: Any, tokens: torch.Tensor) -> torch.Tensor:
    """[positions, D_SAE] of the first row."""
    _, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
    found: torch.Tensor = cache[f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"][0]
    return found


def train(model: Any, folder: Path, prompts: int, layer: int = 1) -> Any:
    """32 steps of SAELens's own runner, the store running `prompts` rows of the model at once."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(0, 255, (32, 8), generator=generator).tolist()
    config = LanguageModelSAERunnerConfig(
        sae=StandardTrainingSAEConfig(d_in=model.cfg.d_model, d_sae=D_SAE, l1_coefficient=0.01),
        hook_name=f"blocks.{layer}.hook_resid_post",
        context_size=8,
        training_tokens=1024,
        train_batch_size_tokens=32,
        store_batch_size_prompts=prompts,
        n_batches_in_buffer=16 // prompts,
        activations_mixing_fraction=0.0,  # in order, so that batches do not depend on `prompts`
        lr=1e-2,
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        output_path=str(folder),
        verbose=False,
    )
    torch.manual_seed(0)
    runner = LanguageModelSAETrainingRunner(
        config, override_model=model, override_dataset=Dataset.from_dict({"tokens": rows})
    )
    return runner.run()


def test_training(small: Subject, tmp_path: Path, signals: None) -> None:
    """Our activations do not depend on the batch, so neither does what is trained on them."""
    sae = train(small.ours, tmp_path / "by 2", prompts=2)
    again = train(small.ours, tmp_path / "by 4", prompts=4)
    other = train(small.ours, tmp_path / "other", prompts=2, layer=0)
    for name, weight in sae.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert not torch.equal(weight, other.state_dict()[name]), name
    resid = residual_stream(small)
    with torch.no_grad():
        assert (sae(resid) - resid).square().mean() < 0.5 * resid.square().mean()


def test_a_trained_sae_from_disk(small: Subject, tmp_path: Path, signals: None) -> None:
    train(small.ours, tmp_path, prompts=4)
    sae = SAE.load_from_disk(str(tmp_path))
    assert sae.cfg.metadata.hook_name == small.hook
    acts = latents(small.ours, sae, small.tokens)
    with torch.no_grad():
        expected = sae.encode(residual_stream(small))
    assert torch.equal(acts, expected[0])
    strongest = acts.max(0).values.argmax()
    where = [latents(x, sae, small.tokens)[:, strongest] for x in (small.ours, small.theirs)]
    top = where[0].topk(2)
    assert top.values[0] - top.values[1] > 2 * (where[0] - where[1]).abs().max()
    strings = small.ours.to_str_tokens(small.tokens[0])
    assert strings[int(top.indices[0])] == strings[int(where[1].argmax())]
