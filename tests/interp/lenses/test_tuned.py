"""The tuned lens: tuned-lens's formula, its numbering of layers, its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitlens.interp import show
from bitlens.interp.lenses import LogitLens, TunedLens, read_lens
from bitlens.model.hooks.registry import same_bits
from safetensors.torch import load_file, save_file
from support.random_models import byte_tokenizer, random_model

MODEL = random_model("llama", tokenizer=byte_tokenizer())
L, D = MODEL.config.n_layers, MODEL.config.d_model


def random_lens(seed: int = 0) -> TunedLens:
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(L, D, D, generator=g) / D
    return TunedLens(MODEL, weights, torch.randn(L, D, generator=g) / 8)


def test_what_leaves_a_block_is_read_as_tuned_lens_reads_it() -> None:
    """Its translator i adds an affine map to hidden_states[i], which enters block i; then come the
    final norm and the unembedding."""
    lens = random_lens()
    names = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"]
    logits, cache = MODEL.run_with_cache("abcd", [*names, f"blocks.{L - 1}.hook_resid_post"])
    assert same_bits(cache[names[0]], cache[names[1]])
    h = cache[names[1]].double()
    moved = h + torch.nn.functional.linear(h, lens.weights[1].double(), lens.biases[1].double())
    expected = MODEL.unembed(MODEL.ln_final(moved.float()))
    found = lens.logits(cache[names[0]], 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, LogitLens(MODEL).logits(cache[names[0]], 0), atol=1e-3)
    assert same_bits(lens.logits(cache[f"blocks.{L - 1}.hook_resid_post"], L - 1), logits)


def test_a_lens_of_zeros_is_the_logit_lens() -> None:
    lens = TunedLens(MODEL, torch.zeros(L, D, D), torch.zeros(L, D))
    for mine, plain in zip(
        vars(read_lens(lens, "abc")).values(),
        vars(read_lens(LogitLens(MODEL), "abc")).values(),
        strict=True,
    ):
        assert same_bits(mine, plain)


def test_files_round_trip(tmp_path: Path) -> None:
    lens = random_lens()
    lens.save(tmp_path)
    again = TunedLens.load(tmp_path, MODEL)
    assert same_bits(again.weights, lens.weights)
    assert same_bits(again.biases, lens.biases)
    assert again.config["num_hidden_layers"] == L
    assert sorted(load_file(tmp_path / "params.safetensors"))[0] == "0.bias"
    assert "Tuned lens" in show.logit_lens(MODEL, "abc", lens=again)._repr_html_()


def test_a_lens_without_biases(tmp_path: Path) -> None:
    random_lens().save(tmp_path)
    path = tmp_path / "params.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "weight" in k}, path)
    assert not TunedLens.load(tmp_path, MODEL).biases.any()


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no params"):
        TunedLens.load(tmp_path, MODEL)
    (tmp_path / "params.pt").write_bytes(b"\x80")
    with pytest.raises(ValueError, match="pickle, which is never opened"):
        TunedLens.load(tmp_path, MODEL)
    random_lens().save(tmp_path)
    path, config = tmp_path / "params.safetensors", tmp_path / "config.json"
    whole = load_file(path)
    for changed, message in (
        ({k: v for k, v in whole.items() if k != "1.weight"}, "1.weight is missing"),
        (whole | {"1.bias": torch.zeros(D + 1)}, "1.bias is"),
        (whole | {f"{L}.bias": torch.zeros(D)}, "no use for tensor"),
        (whole | {"0.bias": torch.full((D,), torch.nan)}, "NaN or infinity"),
    ):
        save_file(changed, path)
        with pytest.raises(ValueError, match=message):
            TunedLens.load(tmp_path, MODEL)
    save_file(whole, path)
    config.write_text(json.dumps({"lens_type": "mlp"}))
    with pytest.raises(ValueError, match="expected 'linear_tuned_lens'"):
        TunedLens.load(tmp_path, MODEL)
    for text in ("{", "[]"):
        config.write_text(text)
        with pytest.raises(ValueError, match="no tuned lens"):
            TunedLens.load(tmp_path, MODEL)
    config.write_text("{}")
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="no tuned lens"):
        TunedLens.load(tmp_path, MODEL)
    with pytest.raises(ValueError, match="do not fit"):
        TunedLens(MODEL, torch.zeros(1, D, D), torch.zeros(1, D))
    with pytest.raises(ValueError, match="biases"):
        TunedLens(MODEL, torch.zeros(L, D, D), torch.zeros(1, D))
