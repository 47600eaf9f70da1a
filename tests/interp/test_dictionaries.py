"""Dictionaries: SAELens's formulas and files, gradients, narrow weights, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.dictionaries import (
    Dictionary,
    DictionaryConfig,
    DictionaryError,
    Features,
    load_dictionaries,
    load_dictionary,
)
from bitlens.interp.dictionaries.config import ARCHITECTURES
from bitlens.interp.dictionaries.cross_layer import (
    CrossLayerConfig,
    CrossLayerTranscoder,
    load_cross_layer,
)
from bitlens.model.hooks import same_bits
from support.random_dictionaries import random_dictionary
from support.random_models import random_model

HOOK, OUT = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"
MODEL = random_model("llama")
SAE_LENS = (
    "standard",
    "topk",
    "jumprelu",
    "gated",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)


def made(architecture: str, seed: int = 0, **changes: Any) -> Dictionary:
    out = OUT if architecture.endswith("transcoder") else None
    dictionary = random_dictionary(MODEL, HOOK, out, architecture, seed=seed)
    if not changes:
        return dictionary
    cfg = dataclasses.replace(dictionary.cfg, **changes)
    return Dictionary(cfg, {n: p.detach() for n, p in dictionary.named_parameters()})


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    width = MODEL.config.d_model
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", SAE_LENS)
def test_sae_lens_reads_the_folder_and_computes_the_same(architecture: str, tmp_path: Path) -> None:
    import sae_lens

    for rescale in (False, True) if architecture == "topk" else (False,):
        dictionary = made(architecture, rescale_acts_by_decoder_norm=rescale)
        dictionary.save_model(tmp_path)
        peer = sae_lens.SAE.load_from_disk(tmp_path, device="cpu")
        x = rows(40)
        theirs = peer.encode(x)
        ours = dictionary.encode(x)
        assert torch.equal(ours > 0, theirs > 0)
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert torch.allclose(dictionary(x), peer(x), rtol=1e-5, atol=1e-5)
        # And back: what SAELens saves is read with the same bits.
        peer.save_model(tmp_path / "again")
        again = load_dictionary(tmp_path / "again")
        for (name, a), b in zip(dictionary.named_parameters(), again.parameters(), strict=True):
            assert same_bits(a, b), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_round_trip_keeps_every_bit(architecture: str, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        dictionary = made(architecture).to(dtype)
        dictionary.save_model(tmp_path)
        again = load_dictionary(tmp_path, model=MODEL)
        x = rows(3, 5)
        assert same_bits(again.encode(x), dictionary.encode(x))
        assert same_bits(again(x), dictionary(x))
        assert again.W_enc.dtype == dtype
        for name, parameter in again.named_parameters():
            if not name.startswith("W_"):
                assert parameter.dtype == torch.float32, name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_and_dense_are_one(architecture: str) -> None:
    dictionary, x = made(architecture), rows(4, 7)
    sparse, dense = dictionary.encode_sparse(x), dictionary.encode(x)
    assert same_bits(sparse.dense(), dense)
    assert sparse.shape == (4, 7, dictionary.cfg.d_sae)
    assert same_bits(dictionary.decode(sparse, x), dictionary.decode(dense, x))
    assert sparse.l0() == pytest.approx(float((dense != 0).sum()) / 28)
    assert same_bits(Features.from_dense(dense).dense(), dense)
    # A row's features do not depend on its batch mates.
    assert same_bits(dictionary.encode(x[2, 3]), dense[2, 3])


DIFFERENTIATED = ("standard", "topk", "jumprelu", "gated", "skip_transcoder")


@pytest.mark.parametrize("architecture", DIFFERENTIATED)
def test_gradients_are_those_of_the_formula_and_the_graph_moves_no_bit(architecture: str) -> None:
    dictionary = made(architecture)
    plain = dictionary(rows(6))
    dictionary.requires_grad_(True)
    x = rows(6).requires_grad_()
    y = dictionary(x)
    assert same_bits(y.detach(), plain)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    (y * weights).sum().backward()

    p = {n: t.detach().double().requires_grad_() for n, t in dictionary.named_parameters()}
    x64 = x.detach().double().requires_grad_()
    centred = x64 - p["b_dec"] if dictionary.cfg.apply_b_dec_to_input else x64
    active = (dictionary.encode(x.detach()) > 0).double().detach()
    if architecture == "gated":
        acts = (centred @ p["W_enc"] * p["r_mag"].exp() + p["b_mag"]) * active
    else:
        acts = (centred @ p["W_enc"] + p["b_enc"]) * active
    exact = acts @ p["W_dec"] + p["b_dec"]
    if architecture == "skip_transcoder":
        exact = exact + x64 @ p["W_skip"].T
    (exact * weights.double()).sum().backward()
    assert x.grad is not None
    assert x64.grad is not None
    assert torch.allclose(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-4)
    for name, parameter in dictionary.named_parameters():
        if name in ("threshold", "b_gate"):
            assert parameter.grad is None, name
            continue
        expected = p[name].grad
        assert parameter.grad is not None
        assert expected is not None
        assert torch.allclose(parameter.grad.double(), expected, rtol=1e-4, atol=1e-4), name


def test_weights_that_change_are_seen() -> None:
    dictionary, x = made("topk"), rows(5)
    before = dictionary.encode(x)
    with torch.no_grad():
        dictionary.W_enc.mul_(2)
    assert not torch.equal(dictionary.encode(x), before)


def test_half_keeps_thresholds_and_biases() -> None:
    dictionary = made("jumprelu")
    threshold = dictionary.threshold.detach().clone()
    narrow = dictionary.to(torch.bfloat16)
    assert narrow.W_enc.dtype == torch.bfloat16
    assert same_bits(narrow.threshold, threshold)


def test_several_are_loaded_by_their_hook(tmp_path: Path) -> None:
    for i in range(2):
        random_dictionary(MODEL, f"blocks.{i}.hook_resid_post").save_model(tmp_path / str(i))
    found = load_dictionaries(tmp_path, model=MODEL)
    assert sorted(found) == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    random_dictionary(MODEL, "blocks.0.hook_resid_post").save_model(tmp_path / "twice")
    with pytest.raises(DictionaryError, match=r"two dictionaries of blocks\.0"):
        load_dictionaries(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder below it"):
        load_dictionaries(_empty(tmp_path / "none"))


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


# What is refused


def damaged(tmp_path: Path, changes: dict[str, Any]) -> Path:
    made("topk").save_model(tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "crosscoder"}, "crosscoders read several layers"),
        ({"architecture": "temporal"}, "temporal SAEs"),
        ({"architecture": "nonsense"}, "'nonsense': expected one of"),
        ({"k": 49}, "k = 49"),
        ({"k": True}, "k = True"),
        ({"d_in": -3}, "d_in = -3"),
        ({"d_in": "576"}, "d_in = '576'"),
        ({"d_sae": 1 << 40}, "d_sae"),
        (
            {"normalize_activations": "covariance_whitening"},
            "normalize_activations = 'covariance_whitening'",
        ),
        ({"metadata": {}}, "names no hook"),
        ({"metadata": 3}, "expected an object"),
        ({"d_sae": 47}, "expected shape"),
        ({"architecture": "jumprelu"}, "no tensor 'threshold'"),
        ({"architecture": "gated"}, "no tensor 'b_gate'"),
    ],
)
def test_a_bad_config_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match=message):
        load_dictionary(damaged(tmp_path, changes))


def test_bad_files_are_named(tmp_path: Path) -> None:
    made("topk").save_model(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    whole = weights.read_bytes()
    for n in (0, 7, 100, len(whole) - 1):
        weights.write_bytes(whole[:n])
        with pytest.raises(DictionaryError, match="sae_weights"):
            load_dictionary(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(DictionaryError, match="not JSON"):
        load_dictionary(tmp_path)
    weights.unlink()
    (tmp_path / "ae.pt").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match=r"ae\.pt is a pickle"):
        load_dictionary(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such dictionary"):
        load_dictionary(tmp_path / "nowhere")


def test_bad_weights_and_rows_are_named() -> None:
    dictionary = made("topk")
    tensors = {n: p.detach().clone() for n, p in dictionary.named_parameters()}
    tensors["W_dec"][3, 1] = torch.nan
    with pytest.raises(DictionaryError, match="W_dec holds values"):
        Dictionary(dictionary.cfg, tensors)
    with pytest.raises(ValueError, match="rows of 3 values"):
        dictionary.encode(torch.zeros(2, 3))
    x = rows(2)
    x[1, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        dictionary.encode(x)
    with pytest.raises(ValueError, match="47 features"):
        dictionary.decode(torch.zeros(2, 47))
    with pytest.raises(ValueError, match="needs x"):
        made("skip_transcoder").decode(torch.zeros(2, 48))


def test_a_dictionary_of_another_shape_or_hook_does_not_fit(tmp_path: Path) -> None:
    wide = DictionaryConfig(
        architecture="standard", d_in=7, d_sae=3, d_out=7, hook_name=HOOK, hook_name_out=HOOK
    )
    shapes = wide.tensor_shapes().items()
    Dictionary(wide, {name: torch.zeros(shape) for name, shape in shapes}).save_model(tmp_path)
    with pytest.raises(DictionaryError, match="the dictionary expects 7"):
        load_dictionary(tmp_path, model=MODEL)
    other = dataclasses.replace(wide, hook_name="blocks.99.x", hook_name_out="blocks.99.x")
    Dictionary(other, {name: torch.zeros(shape) for name, shape in shapes}).save_model(tmp_path)
    with pytest.raises(DictionaryError, match=r"blocks\.99\.x is none of"):
        load_dictionary(tmp_path, model=MODEL)


# Cross-layer transcoders


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_a_cross_layer_transcoder_reads_one_layer_and_writes_later_ones(
    activation: str, tmp_path: Path
) -> None:
    cfg = CrossLayerConfig(n_layers=3, d_model=8, d_sae=16, activation=activation, k=4)
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(s, generator=generator) for n, s in cfg.tensor_shapes().items()}
    tensors |= {n: x.abs() for n, x in tensors.items() if n.startswith("threshold")}
    clt = CrossLayerTranscoder(cfg, tensors)
    x = torch.randn(3, 5, 8, generator=generator)
    features = [clt.encode(x[i], i) for i in range(3)]
    for layer in range(3):
        exact = tensors[f"b_dec_{layer}"].double()
        for source in range(layer + 1):
            acts = features[source].dense().double()
            exact = exact + acts @ tensors[f"W_dec_{source}"][:, layer - source].double()
        assert torch.allclose(clt.decode(features, layer).double(), exact, rtol=1e-4, atol=1e-4)
    clt.save_model(tmp_path)
    again = load_cross_layer(tmp_path)
    assert again.cfg.activation == activation
    for name, parameter in clt.named_parameters():
        assert same_bits(parameter, getattr(again, name))
    with pytest.raises(ValueError, match="needs the features of 3 layers"):
        clt.decode(features[:2], 2)
    with pytest.raises(IndexError, match="layer 3 of 3"):
        clt.encode(x[0], 3)
    (tmp_path / "W_dec_1.safetensors").unlink()
    with pytest.raises(DictionaryError, match="W_dec_1"):
        load_cross_layer(tmp_path)
