"""A native model as a module and an object: what cannot be had raises, copies compute the same."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitlens
import pytest
import torch
import transformers
from bitlens.model import HookedTransformer
from support.random_models import random_model

TOKENS = torch.arange(9)[None]
NO_OPS: dict[str, Callable[[HookedTransformer], object]] = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.to(torch.bfloat16),
    "double": lambda m: m.double(),
    "meta": lambda m: m.to("meta"),
    "to_empty": lambda m: m.to_empty(device="meta"),
    "inside another module": lambda m: torch.nn.Sequential(m).half(),
    "state_dict": lambda m: m.state_dict(),
    "load_state_dict": lambda m: m.load_state_dict({}),
}


@pytest.fixture
def model() -> HookedTransformer:
    return random_model("llama")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NO_OPS)
def test_what_would_do_nothing_raises_with_the_way_out(name: str, model: HookedTransformer) -> None:
    with pytest.raises(ValueError, match=r'native weights .*backend="torch"'):
        NO_OPS[name](model)


def test_what_is_so_already_is_no_error(model: HookedTransformer) -> None:
    assert model.to("cpu") is model.float() is model.to(torch.float32).eval()
    assert random_model("llama", dtype="bf16").bfloat16() is not None
    there = random_model("llama", backend="torch")
    assert there.half().embed.weight.dtype is torch.float16
    assert there.state_dict()


@pytest.mark.parametrize("options", [{}, {"dtype": "hf_bf16"}, {"backend": "torch"}], ids=repr)
def test_a_deep_copy_has_the_same_bits_and_its_own_hooks(options: dict[str, Any]) -> None:
    model = random_model("llama", **options)
    expected = model(TOKENS).detach()
    copied = copy.deepcopy(model)
    copied.add_hook("blocks.0.hook_resid_pre", lambda x, hook: x * 2)
    assert not torch.equal(copied(TOKENS).detach(), expected)
    assert torch.equal(model(TOKENS).detach(), expected)
    copied.reset_hooks()
    del model
    assert torch.equal(copied(TOKENS).detach(), expected)


def test_a_deep_copy_shares_packed_weights(model: HookedTransformer) -> None:
    copied = copy.deepcopy(model)
    assert copied.unembed.weight.ptr == model.unembed.weight.ptr
    assert copied.ln_final.weight.data_ptr() != model.ln_final.weight.data_ptr()


def test_a_pickle_holds_the_source_and_the_hash(folder: Path) -> None:
    model = bitlens.load(folder, dtype="bf16")
    expected = model(TOKENS)
    stored = pickle.dumps(model)
    assert len(stored) < 4096
    again = pickle.loads(stored)
    assert again.ops.policy.name == "bf16"
    assert torch.equal(again(TOKENS), expected)
    transformers.LlamaForCausalLM.from_pretrained(folder).float().apply(_double).save_pretrained(
        folder
    )
    with pytest.raises(ValueError, match="not those of the pickled model"):
        pickle.loads(stored)


def _double(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for x in module.parameters(recurse=False):
            x.mul_(2)


def test_a_model_made_in_memory_says_why_it_cannot_be_pickled(model: HookedTransformer) -> None:
    with pytest.raises(TypeError, match=r"made in memory.*save_pretrained"):
        pickle.dumps(model)


def test_a_cache_is_saved_as_a_dict(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(TOKENS)
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    assert isinstance(found, dict)
    assert list(found) == list(cache)
    assert all(torch.equal(found[name], cache[name]) for name in cache)
    copied = copy.deepcopy(cache)
    assert copied.model is cache.model
    copied["hook_embed"].zero_()
    assert cache["hook_embed"].any()
