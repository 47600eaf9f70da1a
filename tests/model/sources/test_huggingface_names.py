"""Checkpoints whose tensors have other names, or of which two contradict each other: what
transformers makes of them, by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bitlens
import pytest
import torch
import transformers
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import CheckpointError
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Rename = Callable[[str], str]
TOKENS = torch.arange(12)[None]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def save(folder: Path, tied: bool) -> Tensors:
    """Writes a random Llama; returns the stored tensors."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def store(folder: Path, tensors: Tensors) -> None:
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def theirs(folder: Path) -> torch.Tensor:
    """The logits of the model that transformers loads, which must find every tensor."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values())
    with torch.no_grad():
        return model(TOKENS).logits


def ours(folder: Path) -> torch.Tensor:
    return bitlens.load(folder)(TOKENS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stored_head_is_kept_against_the_config(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = save(tmp_path, tied=True)
    head = torch.randn(48, 32).to(dtype)
    store(tmp_path, tensors | {HEAD: head})
    with pytest.warns(UserWarning, match=r"tie_word_embeddings is true, but lm_head\.weight and"):
        found = ours(tmp_path)
    torch.testing.assert_close(found, theirs(tmp_path))
    torch.testing.assert_close(open_checkpoint(tmp_path).matrix("unembed.weight").data, head)


def test_one_differing_weight_is_a_head_of_its_own(tmp_path: Path) -> None:
    tensors = save(tmp_path, tied=True)
    head = tensors[EMBEDDING].clone()
    head[-1, -1] += 1
    store(tmp_path, tensors | {HEAD: head})
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        found = ours(tmp_path)
    torch.testing.assert_close(found, theirs(tmp_path))


def test_a_head_of_another_shape_is_refused_as_by_transformers(tmp_path: Path) -> None:
    store(tmp_path, save(tmp_path, tied=True) | {HEAD: torch.randn(40, 32)})
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        theirs(tmp_path)
    with (
        pytest.warns(UserWarning, match="tie_word_embeddings"),
        pytest.raises(CheckpointError, match=r"lm_head\.weight has shape \[40, 32\]"),
    ):
        ours(tmp_path)


def test_a_tied_model_may_store_only_its_head(tmp_path: Path) -> None:
    tensors = save(tmp_path, tied=True)
    expected = ours(tmp_path)
    tensors[HEAD] = tensors.pop(EMBEDDING)
    store(tmp_path, tensors)
    assert torch.equal(ours(tmp_path), expected)
    torch.testing.assert_close(expected, theirs(tmp_path))


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_of_the_base_model_has_no_prefix(tmp_path: Path, tied: bool) -> None:
    tensors = save(tmp_path, tied)
    expected = ours(tmp_path)
    store(tmp_path, {name.removeprefix("model."): x for name, x in tensors.items()})
    assert torch.equal(ours(tmp_path), expected)
    torch.testing.assert_close(expected, theirs(tmp_path))


WRAPPERS: dict[str, Rename] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "compiled under DDP, twice": lambda name: f"_orig_mod.module.module.{name}",
    "compiled layers": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    "FSDP of the base": lambda name: f"_fsdp_wrapped_module.{name.removeprefix('model.')}",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_of_wrappers_are_left_out(tmp_path: Path, wrapper: str) -> None:
    """The tensors of the model inside, of which transformers itself finds none."""
    tensors = save(tmp_path, tied=True)
    expected = ours(tmp_path)
    renamed = {WRAPPERS[wrapper](name): x for name, x in tensors.items()}
    assert set(renamed) != set(tensors)
    store(tmp_path, renamed)
    assert torch.equal(ours(tmp_path), expected)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    tensors = save(tmp_path, tied=True)
    store(tmp_path, tensors | {"norm.weight": torch.zeros(32)})
    with pytest.raises(CheckpointError, match=r"both stand for 'model\.norm\.weight'"):
        ours(tmp_path)


def test_names_that_mean_nothing_are_shown_as_stored(tmp_path: Path) -> None:
    tensors = save(tmp_path, tied=True)
    store(tmp_path, tensors | {"module.model.other.weight": torch.zeros(32)})
    with pytest.raises(CheckpointError, match=r"no use for: module\.model\.other\.weight"):
        ours(tmp_path)
