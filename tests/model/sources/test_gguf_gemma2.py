"""Gemma 2 as GGUF: its metadata, what it may leave out, and its norms' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.gguf_config import config_from_gguf
from bitlens.model.weights.checkpoint import Checkpoint, CheckpointError
from support.gguf_writer import GEMMA2_METADATA, gemma2_tensors, gguf_bytes, write_llama


def gemma2(path: Path, **metadata: Any) -> Checkpoint:
    keys = {f"gemma2.{key.replace('__', '.')}": v for key, v in metadata.items()}
    merged = {key: v for key, v in {**GEMMA2_METADATA, **keys}.items() if v is not None}
    path.write_bytes(gguf_bytes(merged, gemma2_tensors(np.random.default_rng(2))))
    return open_checkpoint(path)


def test_gemma2(tmp_path: Path) -> None:
    checkpoint = gemma2(tmp_path / "m.gguf")
    config = checkpoint.config
    assert (config.architecture, config.act_fn) == ("gemma2", "gelu_tanh")
    assert [layer.window for layer in config.layers] == [8, None, 8]
    assert {layer.rope_theta for layer in config.layers} == {1e4}
    assert (config.attn_logit_softcap, config.final_logit_softcap) == (50.0, 30.0)
    assert (config.sandwich_norms, config.qk_norm, config.tie_embeddings) == (True, False, True)
    assert config.norm_offset == 0.0  # llama.cpp's converter adds the 1
    assert (config.embed_scale, config.attn_scale) == (8.0, 0.25)
    raw = gemma2_tensors(np.random.default_rng(2))
    for ours, theirs in (
        ("ln1_post", "post_attention_norm"),
        ("ln2", "ffn_norm"),
        ("ln2_post", "post_ffw_norm"),
    ):
        stored = torch.tensor(np.frombuffer(raw[f"blk.2.{theirs}.weight"].data, "<f4"))
        assert torch.equal(checkpoint.vector(f"blocks.2.{ours}.weight"), stored)
    logits = bitlens.load(checkpoint)(torch.arange(12))
    assert bool((logits.abs() < 30).all())


def test_what_gemma2_leaves_out_is_as_llama_cpp_has_it(tmp_path: Path) -> None:
    names = ("attn_logit_softcapping", "final_logit_softcapping", "attention__sliding_window")
    config = gemma2(tmp_path / "m.gguf", **dict.fromkeys(names)).config
    assert (config.attn_logit_softcap, config.final_logit_softcap) == (50.0, 30.0)
    assert [layer.window for layer in config.layers] == [4096, None, 4096]


def test_other_layers_than_gemma2_has_are_refused(tmp_path: Path) -> None:
    same = {"attention__sliding_window_pattern": 2, "rope__freq_base_swa": 1e4}
    assert gemma2(tmp_path / "m.gguf", **same).config == gemma2(tmp_path / "m.gguf").config
    with pytest.raises(CheckpointError, match=r"sliding_window_pattern = 6: expected 2"):
        gemma2(tmp_path / "m.gguf", attention__sliding_window_pattern=6)
    with pytest.raises(CheckpointError, match=r"freq_base_swa = .*: expected 10000"):
        gemma2(tmp_path / "m.gguf", rope__freq_base_swa=2e4)


def test_a_cap_of_0_is_none_and_a_negative_one_an_error(tmp_path: Path) -> None:
    config = gemma2(tmp_path / "m.gguf", final_logit_softcapping=0.0).config
    assert (config.attn_logit_softcap, config.final_logit_softcap) == (50.0, None)
    with pytest.raises(
        CheckpointError, match=r"attn_logit_softcapping = -1\.0: expected a positive"
    ):
        gemma2(tmp_path / "m.gguf", attn_logit_softcapping=-1.0)
    with pytest.raises(CheckpointError, match=r"final_logit_softcapping = 30\.0: expected none in"):
        open_checkpoint(write_llama(tmp_path / "l.gguf", llama__final_logit_softcapping=30.0))


def test_gemma2_27b_scales_by_a_heads_share(tmp_path: Path) -> None:
    """query_pre_attn_scalar, which GGUF has no key for: llama.cpp knows the model by its depth."""
    head = {"gemma2.attention.key_length": 32, "gemma2.attention.value_length": 32}
    fields, shapes = {**GEMMA2_METADATA, **head}, {"token_embd.weight": (40, 64)}
    assert config_from_gguf(fields, shapes).attn_scale == 32**-0.5
    assert config_from_gguf(fields | {"gemma2.block_count": 46}, shapes).attn_scale == 16**-0.5
