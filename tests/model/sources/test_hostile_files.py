"""Files made to harm, one defect each: every one is refused with an error that names it.

tests/fuzz finds such files; those that once got through stay here.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitlens import load
from bitlens.model.config_error import ConfigError
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.huggingface_config import config_from_huggingface
from bitlens.model.sources.huggingface_tokenizer import tokenizer_from_directory
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.weights.checkpoint import CheckpointError
from fuzz import seeds
from support.gguf_writer import LLAMA_METADATA, Typed, dense, gguf_bytes, llama_tensors, write_llama
from support.random_models import byte_tokenizer, random_checkpoint

D_VOCAB = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a sound tokenizer."""
    for name, tree in seeds.tokenizer_files().items():
        (tmp_path / name).write_text(json.dumps(tree))
    return tmp_path


def read(folder: Path) -> Tokenizer:
    tokenizer = tokenizer_from_directory(folder, D_VOCAB)
    assert tokenizer is not None
    return tokenizer


def change(folder: Path, name: str, **fields: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def growing(n: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9}
    return {"type": "Sequence", "normalizers": [step] * n}


HOSTILE_TOKENIZERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    # 8 GiB are asked for on loading, and the process ends where they are not to be had.
    (
        "normalizer",
        {"type": "Precompiled", "precompiled_charsmap": "//////////8="},
        "type 'Precompiled' is not supported",
    ),
    ("normalizer", growing(9), "387420489 characters of one"),
    ("model", seeds._bpe(dropout=0.1), r"dropout = 0.1: ids would differ from call to call"),
    ("model", seeds._bpe(vocab={"a": 0, "b": 1, "ab": D_VOCAB}), "token id 64 for a model vocab"),
    ("model", seeds._bpe(continuing_subword_prefix="#" * 30), "out of range"),  # a panic
)


@pytest.mark.parametrize(("part", "content", "message"), HOSTILE_TOKENIZERS)
def test_tokenizers_that_harm_are_refused(
    folder: Path, part: str, content: dict[str, Any], message: str
) -> None:
    change(folder, "tokenizer.json", **{part: content})
    with pytest.raises(CheckpointError, match=message):
        read(folder)


def test_growth_within_reason_is_allowed(folder: Path) -> None:
    change(folder, "tokenizer.json", normalizer=growing(1))
    assert len(read(folder).encode("a")) == 9


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("pre_tokenizer", seeds._split(r"(a+)+$")),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    ],
)
def test_tokenizers_that_fail_on_a_text_raise_value_errors(
    folder: Path, part: str, content: dict[str, Any]
) -> None:
    """The library panics, which is no Exception, or raises a bare one."""
    change(folder, "tokenizer.json", **{part: content})
    tokenizer = read(folder)
    with pytest.raises(ValueError, match="the tokenizer failed"):
        tokenizer.encode("a" * 40 + "b!")
    said = [{"role": "user", "content": "a" * 40 + "b!"}]
    talking = Tokenizer(tokenizer._backend, chat_template="{{ messages[0].content }}")
    with pytest.raises(ValueError, match="the tokenizer failed"):
        talking.encode_chat(said)


def test_decoders_that_panic_raise_value_errors(folder: Path) -> None:
    strip = {"type": "Strip", "content": "a", "start": 2**32 - 1, "stop": 1}
    change(folder, "tokenizer.json", decoder=strip)
    with pytest.raises(ValueError, match="the tokenizer failed"):
        read(folder).decode([0, 1])


@pytest.mark.parametrize("token_id", [-1, 2**32, 10**30])
def test_ids_that_cannot_be_are_value_errors(token_id: int) -> None:
    tokenizer = byte_tokenizer()
    for call in (tokenizer.token, lambda i: tokenizer.decode([i])):
        with pytest.raises(ValueError, match=f"token id {token_id} is"):
            call(token_id)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("generation_config.json", {"eos_token_id": 10**20}, "token id 10+ is beyond"),
        ("tokenizer_config.json", {"bos_token": "\ud800"}, "bos_token .* is not in tokenizer.json"),
        ("tokenizer_config.json", {"pad_token": ["<pad>"]}, "pad_token .* is not in"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": 3}]}, "a str"),
    ],
)
def test_hostile_settings_are_named(
    folder: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    change(folder, name, **fields)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


def test_chat_templates_that_are_none_are_passed_over(folder: Path) -> None:
    change(folder, "tokenizer_config.json", chat_template=[3, None, {"name": "other"}])
    assert read(folder).chat_template is None


def test_templates_that_are_not_text_are_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: not UTF-8"):
        read(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_name_twice_is_refused(folder: Path, name: str) -> None:
    """Two readers could take different ones: what is checked must be what is used."""
    text = (folder / name).read_text()
    key = next(iter(json.loads(text)))
    (folder / name).write_text(f'{text[:-1]}, "{key}": null}}')
    with pytest.raises(CheckpointError, match=f"'{key}' appears twice"):
        read(folder)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    os.mkfifo(folder / "tokenizer_config.json")
    with pytest.raises(CheckpointError, match="not a file"):
        read(folder)


@pytest.mark.parametrize(
    "field",
    ["head_dim", "hidden_size", "vocab_size", "max_position_embeddings", "num_attention_heads"],
)
@pytest.mark.parametrize("size", [2**31, 2**64, 10**400])
def test_sizes_beyond_what_kernels_count_are_refused(field: str, size: int) -> None:
    with pytest.raises(ConfigError, match=field):
        config_from_huggingface(seeds.config_json("llama") | {field: size})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("query_pre_attn_scalar", 1e-200),  # a scale of 1e100, infinite in fp32
        ("query_pre_attn_scalar", math.inf),
        ("rms_norm_eps", 1e200),
        ("rms_norm_eps", 1e-60),  # zero in fp32
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e200}),
        ("sliding_window", 2**63),
    ],
)
def test_numbers_fp32_cannot_hold_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        config_from_huggingface(seeds.config_json("gemma3_text") | {field: value})


def test_rope_factors_longer_than_any_float_are_refused() -> None:
    fields = seeds.config_json("mistral with longrope")
    fields["rope_parameters"]["short_factor"][0] = 10**400
    with pytest.raises(ConfigError, match="short_factor"):
        config_from_huggingface(fields)


def test_a_shard_name_no_file_system_takes(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(seeds.config_json("llama")))
    index = {"weight_map": {"model.norm.weight": "x" * 10_000 + ".safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is missing"):
        open_checkpoint(folder)


def test_tensor_names_cannot_write_on_a_terminal(tmp_path: Path) -> None:
    tensors = llama_tensors(np.random.default_rng(0))
    tensors["\x1b[2J" + "x" * 1000] = dense(np.ones(4))
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_bytes(LLAMA_METADATA, tensors))
    with pytest.raises(CheckpointError, match="has no use for") as error:
        open_checkpoint(file)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.context_length", Typed("u64", 2**63), "context_length .* 2147483647 at most"),
        ("llama.rope.freq_base", Typed("f64", 1e300), "freq_base .* fp32's range"),
        ("llama.attention.layer_norm_rms_epsilon", math.nan, "layer_norm_rms_epsilon"),
    ],
)
def test_metadata_beyond_any_model_is_named(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write_llama(tmp_path / "m.gguf", **{key.replace(".", "__"): value}))


def sentencepiece(tmp_path: Path, **changes: Any) -> Path:
    tokens = ["<unk>", "a", "aa", "b"]
    keys = {
        "model": "llama",
        "tokens": tokens,
        "token_type": Typed("i32", [2, 1, 1, 1]),
        "scores": Typed("f32", [0.0, -1.0, -2.0, -3.0]),
        **changes,
    }
    metadata = {f"tokenizer__ggml__{key}": v for key, v in keys.items()}
    return write_llama(tmp_path / "m.gguf", **metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Typed("u32", [])}, "tokenizer.ggml.model: expected a string"),
        ({"token_type": 3}, "token_type: expected an array of 4 numbers"),
        ({"token_type": Typed("bool", True)}, "token_type: expected an array of 4 numbers"),
        ({"scores": Typed("f32", [0.0, math.nan, 0.0, 0.0])}, "scores: expected finite numbers"),
        # Merges are searched at every cut: a megabyte would take hours.
        ({"tokens": ["<unk>", "a", "aa", "a" * 10**6]}, "a token of 1000000 characters"),
        ({"bos_token_id": Typed("u64", 2**64 - 1)}, "token id 18446744073709551615 is beyond"),
    ],
)
def test_hostile_vocabularies_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert open_checkpoint(sentencepiece(tmp_path)).tokenizer is not None
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(sentencepiece(tmp_path, **changes))


@pytest.mark.parametrize("name", ["embed.weight", "blocks.1.ln1.weight", "blocks.0.mlp.up.weight"])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_weights_that_bf16_cannot_hold_are_named(name: str, backend: Any) -> None:
    """Finite as stored, infinite once rounded."""
    checkpoint = random_checkpoint("llama")
    reader: Any = checkpoint.reader
    reader.tensors[name].view(-1)[3] = -3.4e38
    load(checkpoint, backend=backend)
    with pytest.raises(CheckpointError, match=f"'{name}' holds numbers beyond bf16's largest"):
        load(checkpoint, dtype="bf16", backend=backend)
