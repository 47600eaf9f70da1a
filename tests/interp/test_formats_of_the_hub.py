"""Dictionaries of the hub, written here as they are published: read by us and by their peers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitlens.interp.dictionaries import (
    DictionaryError,
    load_dictionaries,
    load_dictionary,
)
from bitlens.interp.dictionaries.hub import HubDictionary
from safetensors.torch import save_file
from support.format_cases import (
    READ,
    D,
    F,
    agree,
    dictionary,
    gemma_tensors,
    generator,
    rows,
)
from support.local_hub import LocalHub, local_hub, repository_of, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with local_hub({}) as running:
        use_hub(monkeypatch, running.url, tmp_path / "cache")
        yield running


def theirs_of(cfg: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Any:
    """SAELens's module for what one of its loaders returned."""
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    config = handle_config_defaulting(dict(cfg))
    sae = sae_lens.SAE.from_dict(config)
    sae.load_state_dict(dict(state))
    return sae


@pytest.mark.parametrize("site", ["res", "mlp", "att"])
def test_gemma_scope(site: str, hub: LocalHub, tmp_path: Path) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    repo, folder = f"google/gemma-scope-2b-pt-{site}", "layer_20/width_16k/average_l0_71"
    source = tmp_path / "repo" / folder
    source.mkdir(parents=True)
    np.savez(source / "params.npz", **{n: x.numpy() for n, x in gemma_tensors().items()})
    hub.repositories[repo] = repository_of(tmp_path / "repo")
    sizes = {"d_in": D, "d_sae": F}
    told, state, _ = loaders.gemma_2_sae_huggingface_loader(repo, folder, cfg_overrides=sizes)
    for name in (f"gemma-scope-2b-pt-{site}:{folder}", f"hf://{repo}/{folder}"):
        d = load_dictionary(name)
        assert d.cfg.hook_name == told["hook_name"]
        assert d.cfg.metadata["model_name"] == told["model_name"]
        theirs = theirs_of(told, state)
        theirs.turn_off_forward_pass_hook_z_reshaping()
        agree(d, theirs, rows())
    assert hub.downloads().count(f"{folder}/params.npz") == 1  # theirs; ours was in the cache


@pytest.mark.parametrize("folder", ["resid_post", "attn_out", "mlp_out", "transcoder"])
@pytest.mark.parametrize("described", [True, False])
def test_gemma_scope_2(
    folder: str, described: bool, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    repo, name = "google/gemma-scope-2-1b-pt", f"{folder}/layer_13_width_16k_l0_small"
    source = tmp_path / "repo" / name
    source.mkdir(parents=True)
    tensors = gemma_tensors(prefix="w")
    hooks = {
        "resid_post": ("output", None, "hook_resid_post"),
        "attn_out": ("self_attn.o_proj.input", None, "attn.hook_z"),
        "mlp_out": ("post_feedforward_layernorm.output", None, "hook_mlp_out"),
        "transcoder": (
            "pre_feedforward_layernorm.output",
            "post_feedforward_layernorm.output",
            "mlp.hook_in",
        ),
    }
    reads, writes, ours = hooks[folder]
    if folder == "transcoder":
        tensors["affine_skip_connection"] = torch.randn(D, D, generator=generator(4))
    save_file(tensors, source / "params.safetensors")
    told = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt"}
    told["hf_hook_point_in"] = f"model.layers.13.{reads}"
    if writes is not None:
        told |= {"hf_hook_point_out": f"model.layers.13.{writes}", "affine_connection": True}
    if described:
        (source / "config.json").write_text(json.dumps(told))
    hub.repositories[repo] = repository_of(tmp_path / "repo")
    shapes = {n: list(x.shape) for n, x in tensors.items()}
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes)
    site = {"resid_post": "res", "attn_out": "att", "mlp_out": "mlp", "transcoder": "transcoders"}
    sae_id = name if folder == "transcoder" else name.partition("/")[2]
    d = load_dictionary(f"gemma-scope-2-1b-pt-{site[folder]}:{sae_id}")
    assert d.cfg.hook_name == f"blocks.13.{ours}"
    if folder == "transcoder":
        # Their config says hook_mlp_in, which is before the norm, and hf_hook_name after it.
        assert d.cfg.hook_name_out == "blocks.13.hook_mlp_out"
    overrides = (
        {} if described or folder != "transcoder" else {"architecture": "jumprelu_skip_transcoder"}
    )
    theirs = theirs_of(
        *loaders.gemma_3_sae_huggingface_loader(repo, name, cfg_overrides=overrides)[:2]
    )
    theirs.turn_off_forward_pass_hook_z_reshaping()
    agree(d, theirs, rows())


def test_llama_scope(hub: LocalHub, tmp_path: Path) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    repo, folder = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
    source = tmp_path / "repo" / folder
    (source / "checkpoints").mkdir(parents=True)
    t = gemma_tensors()
    state = {
        "encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"],
        "decoder.weight": t["W_dec"].T, "decoder.bias": t["b_dec"],
    }  # fmt: skip
    file = source / "checkpoints" / "final.safetensors"
    save_file({n: x.contiguous() for n, x in state.items()}, file)
    told = {
        "d_model": D, "d_sae": F, "jump_relu_threshold": 0.4,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "dataset_average_activation_norm": {"in": 17.125, "out": 17.125},
    }  # fmt: skip
    (source / "hyperparams.json").write_text(json.dumps(told))
    hub.repositories[repo] = repository_of(tmp_path / "repo")
    d = load_dictionary("llama_scope_lxr_8x:l15r_8x")
    assert d.cfg.hook_name == "blocks.15.hook_resid_post"
    overrides = {"dtype": "float32"}
    cfg, weights, _ = loaders.llama_scope_sae_huggingface_loader(
        repo, folder, cfg_overrides=overrides
    )
    theirs = theirs_of(cfg, weights)
    theirs.fold_activation_norm_scaling_factor(math.sqrt(D) / 17.125)
    agree(d, theirs, rows() * 5, factor=1.0)
    # A mutation of the fuzz suite: a number that no fp32 holds.
    for hostile in (1e300, 0, -1, None, True):
        (source / "hyperparams.json").write_text(
            json.dumps(told | {"jump_relu_threshold": hostile})
        )
        with pytest.raises(DictionaryError, match="jump_relu_threshold"):
            load_dictionary(source)


def test_transcoders_of_qwen_3(hub: LocalHub, tmp_path: Path) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    repo, source = "mwhanna/qwen3-0.6b-transcoders-lowl0", tmp_path / "repo"
    source.mkdir()
    t = gemma_tensors()
    del t["threshold"]
    save_file(t | {"W_enc": t["W_enc"].T.contiguous()}, source / "layer_3.safetensors")
    (source / "config.yaml").write_text(
        "model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
    )
    (source / "wandb-config.yaml").write_text(
        f"d_model:\n  value: {D}\nd_feature:\n  value: {F}\nbatch_size:\n  value: 9\n"
    )
    hub.repositories[repo] = repository_of(source)
    d = load_dictionary("mwhanna-qwen3-0.6b-transcoders-lowl0:layer_3")
    assert d.cfg.hook_name == READ
    told, state, _ = loaders.mwhanna_transcoder_huggingface_loader(repo, "layer_3.safetensors")
    agree(d, theirs_of(told, state), rows())
    assert list(load_dictionaries(f"hf://{repo}")) == [READ]


def test_a_set_on_the_hub_and_what_is_not_there(hub: LocalHub, tmp_path: Path) -> None:
    source = tmp_path / "repo"
    for layer in (1, 2):
        hook = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        hook["hook_name_out"] = hook["hook_name"]
        dictionary("jumprelu", **hook).save_model(source / "saes" / f"l{layer}")
    (source / "saes" / "l1" / "ae.pt").write_bytes(b"pickle")
    hub.repositories["me/mine"] = repository_of(source)
    commit = hub.repositories["me/mine"].branches["main"]
    for name in ("hf://me/mine/saes", f"hf://me/mine@{commit}/saes/"):
        assert sorted(load_dictionaries(name)) == [f"blocks.{i}.hook_resid_post" for i in (1, 2)]
    assert not [name for name in hub.downloads() if name.endswith(".pt")]
    with pytest.raises(FileNotFoundError, match="has no 'saes/l9'"):
        load_dictionary("hf://me/mine/saes/l9")
    with pytest.raises(FileNotFoundError, match="neither a file or directory here nor"):
        load_dictionary("hf://me/other")
    with pytest.raises(FileNotFoundError, match="release:sae_id"):
        load_dictionary("gpt2-small-res-jb:blocks.8.hook_resid_pre")


def test_releases_are_those_of_sae_lens() -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    found = 0
    for release, entry in get_pretrained_saes_directory().items():
        if release.endswith("-canonical"):
            continue
        for sae_id, path in entry.saes_map.items():
            named = HubDictionary.parse(f"{release}:{sae_id}")
            if named is not None and "clt" not in release:
                assert (named.repo, named.folder) == (entry.repo_id, path), (release, sae_id)
                found += 1
    assert found > 8000
