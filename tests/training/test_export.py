"""Trained weights as a Hugging Face directory, which bitlens and transformers load."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bitlens
import numpy as np
import pytest
import torch
import transformers
from bitlens.model.config_error import ConfigError
from bitlens.model.hooks.registry import same_bits
from bitlens.model.rope.scaling import Linear
from bitlens.model.sources.huggingface_writer import config_fields
from bitlens.model.training import export
from support.random_models import CONFIGS
from support.training_models import TEMPLATE, small_checkpoint, small_model

TOKENS = torch.arange(1, 10)[None]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_it_loads_as_the_model_that_was_trained(architecture: str, tmp_path: Path) -> None:
    checkpoint = small_checkpoint(architecture)
    if architecture.startswith("gemma"):  # whose scale transformers rounds to fp32
        scale = float(np.float32(checkpoint.config.embed_scale))
        config = dataclasses.replace(checkpoint.config, embed_scale=scale)
        checkpoint = dataclasses.replace(checkpoint, config=config)
    model = bitlens.load(checkpoint, trainable="full")
    assert model.trained is not None
    for value in model.trained.values.values():
        value.mul_(1.01)
    model.trained.rewrite()
    loaded = bitlens.load(export(model, tmp_path))
    assert loaded.config == model.config
    assert loaded.fingerprint() == model.fingerprint()
    with torch.no_grad():
        assert same_bits(loaded(TOKENS), model(TOKENS))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        assert (theirs(TOKENS).logits - loaded(TOKENS)).abs().max() < 1e-4


def test_the_tokenizer_goes_with_it(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(chat_template=TEMPLATE)
    assert checkpoint.tokenizer is not None
    checkpoint.tokenizer.prepends_bos = True
    found = bitlens.load(export(bitlens.load(checkpoint, trainable="lora"), tmp_path)).tokenizer
    assert found is not None
    for name in ("bos_id", "eos_ids", "pad_id", "prepends_bos", "chat_template", "special_tokens"):
        assert getattr(found, name) == getattr(checkpoint.tokenizer, name), name
    assert found.encode("a b", add_bos=True) == checkpoint.tokenizer.encode("a b", add_bos=True)


def test_what_config_json_cannot_say_is_refused(tmp_path: Path) -> None:
    config = CONFIGS["llama"]
    layers = (dataclasses.replace(config.layers[0], rope_scaling=Linear(factor=2.0)),) * 3
    with pytest.raises(ConfigError, match="has a config that no"):
        config_fields(dataclasses.replace(config, layers=layers))
    with pytest.raises(ConfigError, match="has a config that no"):
        config_fields(dataclasses.replace(CONFIGS["gemma2"], folded_norm_offset=1.0))
    with pytest.raises(ValueError, match="export: load the model with"):
        export(small_model(trainable=None), tmp_path)
