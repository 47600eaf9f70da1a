"""Hugging Face directories: bitwise the tensors transformers wrote, or an error that names why."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.architectures import huggingface_name
from bitlens.model.weights.checkpoint import CheckpointError
from safetensors.torch import load_file, save_file

SMALL: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "llama": transformers.LlamaConfig(**SMALL),
    "llama-bias-tied": transformers.LlamaConfig(
        **SMALL, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=6
    ),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=8),
    "qwen2": transformers.Qwen2Config(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=10),
    "gemma2": transformers.Gemma2Config(**SMALL, head_dim=16, sliding_window=8),
    "gemma3": transformers.Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=8),
}


def save(
    path: Path, config: transformers.PretrainedConfig, **options: Any
) -> dict[str, torch.Tensor]:
    """Writes a random model; returns its tensors by transformers' names."""
    torch.manual_seed(0)
    dtype = options.pop("dtype", torch.float32)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # norms start as ones, biases as zeros
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(path, **options)
    return dict(model.state_dict())


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    save(tmp_path, CONFIGS["llama"])
    return tmp_path


def edit_json(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("name", CONFIGS)
def test_tensors_are_bitwise_those_saved(tmp_path: Path, name: str) -> None:
    expected = save(tmp_path, CONFIGS[name])
    checkpoint = open_checkpoint(tmp_path)
    config = checkpoint.config
    for tensor, shape in checkpoint.reader.shapes.items():
        source = expected[huggingface_name(tensor, config)]
        found = checkpoint.matrix(tensor).data if len(shape) == 2 else checkpoint.vector(tensor)
        assert torch.equal(found.view(torch.int32), source.view(torch.int32))
    used = {huggingface_name(tensor, config) for tensor in checkpoint.names()}
    assert set(expected) - used == ({"lm_head.weight"} if config.tie_embeddings else set())
    assert checkpoint.tokenizer is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = save(tmp_path, CONFIGS["llama"], dtype=dtype)
    checkpoint = open_checkpoint(tmp_path)
    stored = checkpoint.matrix("blocks.1.attn.o.weight")
    source = expected["model.layers.1.self_attn.o_proj.weight"]
    assert stored.data.dtype == dtype
    assert torch.equal(stored.data.view(torch.int16), source.view(torch.int16))
    assert torch.equal(checkpoint.vector("ln_final.weight"), expected["model.norm.weight"].float())


def test_shards_read_as_one_model(tmp_path: Path) -> None:
    expected = save(tmp_path, CONFIGS["qwen3"], max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    checkpoint = open_checkpoint(tmp_path)
    for i in range(2):
        found = checkpoint.matrix(f"blocks.{i}.mlp.down.weight").data
        assert torch.equal(found, expected[f"model.layers.{i}.mlp.down_proj.weight"])


def test_a_single_file_wins_over_an_index(tmp_path: Path) -> None:
    save(tmp_path, CONFIGS["qwen3"], max_shard_size="8KB")
    stored = save(tmp_path / "single", CONFIGS["qwen3"])
    doubled = {name: x * 2 for name, x in stored.items()}
    save_file(doubled, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    for stale in (False, True):
        if stale:  # an index of shards that are gone
            for shard in tmp_path.glob("model-*.safetensors"):
                shard.unlink()
        found = open_checkpoint(tmp_path).matrix("embed.weight").data
        assert torch.equal(found, theirs["model.embed_tokens.weight"])
        assert torch.equal(found, doubled["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", "a\\b", "a\0b", 7]
)
def test_shard_names_that_leave_the_directory_are_refused(tmp_path: Path, shard: Any) -> None:
    save(tmp_path / "m", CONFIGS["llama"], max_shard_size="8KB")
    index = tmp_path / "m" / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=weight_map | {"model.norm.weight": shard})
    with pytest.raises(CheckpointError, match=r"not a plain file name|is missing"):
        open_checkpoint(tmp_path / "m")


def test_broken_indices_are_named(tmp_path: Path) -> None:
    save(tmp_path, CONFIGS["llama"], max_shard_size="8KB")
    index = tmp_path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    shards = sorted(set(weight_map.values()))
    moved = shards[0] if weight_map["model.norm.weight"] != shards[0] else shards[1]
    edit_json(index, weight_map=weight_map | {"model.norm.weight": moved})
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' is not in"):
        open_checkpoint(tmp_path)
    edit_json(index, weight_map={k: v for k, v in weight_map.items() if k != "model.norm.weight"})
    with pytest.raises(CheckpointError, match=r"does not list 'model\.norm\.weight'"):
        open_checkpoint(tmp_path)
    edit_json(index, weight_map=weight_map)
    (tmp_path / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"'{shards[1]}' is missing"):
        open_checkpoint(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        open_checkpoint(tmp_path)
    index.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not JSON"):
        open_checkpoint(tmp_path)


def rewrite(directory: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Adds, replaces or (None) removes tensors of a single-file checkpoint."""
    file = directory / "model.safetensors"
    tensors: dict[str, torch.Tensor | None] = {**load_file(file), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.layers.0.mlp.up_proj.weight": None},
            "missing tensors: model.layers.0.mlp.up_proj",
        ),
        (
            {"model.norm.weight": torch.ones(31)},
            r"model.norm.weight has shape \[31\], expected \[32\]",
        ),
        (
            {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)},
            "no use for: model.layers.0.self",
        ),
        (
            {"model.norm.weight": torch.ones(32, dtype=torch.float64)},
            "'model.norm.weight' has dtype F64",
        ),
        ({"model.norm.weight": torch.ones(32, dtype=torch.int8)}, "supported are F32, BF16, F16"),
    ],
)
def test_wrong_tensors_are_named(
    llama: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    rewrite(llama, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(llama)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(llama: Path, bad: float) -> None:
    norm = torch.ones(32)
    norm[7] = bad
    rewrite(llama, {"model.norm.weight": norm})
    checkpoint = open_checkpoint(llama)
    with pytest.raises(CheckpointError, match=r"'ln_final\.weight' holds NaN or infinity"):
        checkpoint.vector("ln_final.weight")


def test_tensors_transformers_ignores_are_ignored(tmp_path: Path) -> None:
    save(tmp_path, CONFIGS["llama-bias-tied"])
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(
        tmp_path,
        {
            "lm_head.weight": embedding.clone(),
            "model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(3),
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "unembed.weight" not in open_checkpoint(tmp_path)


def test_truncated_safetensors_raise(llama: Path) -> None:
    file = llama / "model.safetensors"
    whole = file.read_bytes()
    for length in [0, 7, 8, 100, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            open_checkpoint(llama)


def test_pickles_are_refused_with_a_way_out(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*save_pretrained"):
        open_checkpoint(llama)


def test_directories_without_a_model_say_so(tmp_path: Path, llama: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(empty)
    (llama / "model.safetensors").rename(llama / "x.gguf")
    with pytest.raises(CheckpointError, match=r"to load x\.gguf, pass its own path"):
        open_checkpoint(llama)
    (llama / "config.json").write_text("not json")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        open_checkpoint(llama)


def test_config_errors_name_the_file(llama: Path) -> None:
    edit_json(llama / "config.json", hidden_act="relu")
    with pytest.raises(CheckpointError, match=r"config\.json: hidden_act = 'relu': supported are"):
        open_checkpoint(llama)
