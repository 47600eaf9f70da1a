"""One small model out of every source that `bitlens.load` takes from Hugging Face."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import transformers
from bitlens.model.load import load
from bitlens.model.transformer import HookedTransformer
from support.huggingface_cases import SHAPE, heads, random_weights
from support.local_hub import local_hub, repository_of, use_hub

SOURCES = ("directory", "hub", "memory")


def model_from(source: str, config: transformers.PretrainedConfig, dtype: str) -> HookedTransformer:
    """The same random weights whatever the source."""
    model = random_weights(copy.deepcopy(config))
    if source == "memory":
        return load(model, dtype=dtype)
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "model", Path(scratch) / "cache"
        model.save_pretrained(folder)
        if source == "directory":
            return load(folder, dtype=dtype)
        with (
            local_hub({"org/model": repository_of(folder)}) as hub,
            pytest.MonkeyPatch.context() as patch,
        ):
            use_hub(patch, hub.url, cache)
            return load("org/model", dtype=dtype)


def small_qwen2(source: str, *, n_ctx: int, dtype: str) -> HookedTransformer:
    """Three layers with biases and grouped heads."""
    shape = SHAPE | {"max_position_embeddings": n_ctx, "num_hidden_layers": 3}
    return model_from(source, transformers.Qwen2Config(**shape, **heads(4, 2, 10)), dtype)
