"""The sound files that mutations start from: small models of every architecture."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from support.gguf_writer import (
    LLAMA_METADATA,
    TYPES,
    Raw,
    Typed,
    llama_tensors,
    random_blocks,
    value,
)
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

CONFIGS: Mapping[str, dict[str, Any]] = {
    "llama": {"hidden_act": "silu", "attention_bias": True, "mlp_bias": False, "head_dim": 6},
    "mistral": {"sliding_window": 8, "rope_theta": 1e6},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "qwen3": {
        "head_dim": 10,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
    },
    "llama with llama3": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen2 with yarn": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 0.7,
            "mscale_all_dim": 0.5,
        },
    },
    "mistral with longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0, 1.0, 1.5, 2.0],
            "long_factor": [2.0, 3.0, 5.0, 9.0],
            "original_max_position_embeddings": 32,
        },
    },
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 16,
        "sliding_window": 4,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        "head_dim": 8,
        "query_pre_attn_scalar": 16,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}


def config_json(name: str) -> dict[str, Any]:
    """A config.json with the fields that transformers writes; names begin with the model type."""
    return {
        "model_type": name.split()[0],
        "architectures": ["AnyForCausalLM"],
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_scaling": None,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        **copy.deepcopy(CONFIGS[name]),  # whoever damages a tree damages its own
    }


def byte_level_backend() -> tokenizers.Tokenizer:
    """A byte-level BPE of 48 tokens with every kind of step around it."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    others = ["Ġ", "!", "0", "1", "Ã", "©", "th", "he", "the", "Ġt", "in", "<s>", "</s>", "<pad>"]
    vocab = {token: i for i, token in enumerate([*letters, *others])}
    merges = [("t", "h"), ("h", "e"), ("th", "e"), ("Ġ", "t"), ("i", "n")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<pad>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace("``", '"'), normalizers.Prepend("t")]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(tokenizers.Regex(r"\p{L}+|\s+(?!\S)|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("_", " "), decoders.ByteLevel(), decoders.Strip("t", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    backend.add_special_tokens(["<s>", "</s>", "<pad>", "<|turn|>"])
    return backend


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _bpe(**fields: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]} | fields


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return split | {"invert": False}


HOSTILE_PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pre_tokenizer", _split(r"(a+)+$")),
    ("pre_tokenizer", _split(r"(a|a|aa)+c")),
    ("pre_tokenizer", _split("(" * 20_000)),
    ("pre_tokenizer", _split("")),
    ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}),
    ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 30}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "//////////8="}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}),
    ("normalizer", {"type": "Sequence", "normalizers": [_replace({"String": "a"}, "a" * 9)] * 9}),
    ("normalizer", {"type": "Sequence", "normalizers": [_replace({"Regex": ""}, "a")] * 40}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 40}),
    ("normalizer", _replace({"Regex": "(a*)*$"}, "")),
    ("decoder", {"type": "Strip", "content": "a", "start": 2**32 - 1, "stop": 1}),
    ("decoder", {"type": "Sequence", "decoders": [_replace({"String": "a"}, "a" * 9)] * 9}),
    ("decoder", {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}),
    ("model", _bpe(continuing_subword_prefix="#" * 30)),
    ("model", _bpe(unk_token="nowhere")),
    ("model", _bpe(dropout=0.5)),
    ("model", _bpe(vocab={"a": 2**32 - 1, "b": 1, "ab": 2})),
    ("model", _bpe(vocab={"a": 1, "b": 1, "ab": 1})),
    ("model", {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"a": 0}}),
    ("model", {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}),
    ("model", {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0], ["b", 1e308]]}),
    ("model", {"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["a", -1e308]]}),
    ("truncation", {"max_length": 0, "stride": 9, "strategy": "LongestFirst", "direction": "Left"}),
    ("post_processor", {"type": "RobertaProcessing", "sep": ["q", 2**32 - 1], "cls": ["q", 9]}),
    ("post_processor", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q"}}]}),
)
"""What the `tokenizers` library takes, and then panics, aborts, grows or draws lots over."""


def tokenizer_files() -> dict[str, Any]:
    """The files around a tokenizer, as trees."""
    return {
        "tokenizer.json": json.loads(byte_level_backend().to_str()),
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": False, "special": True},
            "pad_token": "<pad>",
            "add_bos_token": True,
            "model_max_length": 1000000000000000019884624838656,
            "chat_template": [{"name": "default", "template": "{{ bos_token }}"}, {"name": "b"}],
        },
        "generation_config.json": {"eos_token_id": [38, 40], "bos_token_id": 37},
    }


def _tokenizer_metadata(kind: str) -> dict[str, Any]:
    """A tokenizer of tokenizer.ggml.model `kind`; "gemma" is a "llama" with user-defined tokens."""
    backend = byte_level_backend()
    tokens = [backend.id_to_token(i) or "" for i in range(backend.get_vocab_size())]
    keys: dict[str, Any] = {"model": "gpt2" if kind == "gpt2" else "llama"}
    keys |= {"bos_token_id": 37, "eos_token_id": 38}
    if kind == "gpt2":
        keys |= {"pre": "llama-bpe", "merges": ["t h", "h e", "th e", "Ġ t", "i n"]}
    else:
        tokens = ["<unk>", *tokens[1:36], "<s>", "</s>", "▁", "▁t"]
        tokens += ["\n\n", "  ", "[x]"] if kind == "gemma" else []
        scores = [-float(i) for i in range(len(tokens))]
        keys |= {"scores": Typed("f32", scores), "add_space_prefix": kind == "llama"}
    types = [3 if token.startswith("<") else 1 for token in tokens]
    if kind == "gemma":
        types[-3:] = [4, 4, 4]
    keys |= {"tokens": tokens, "token_type": Typed("i32", types), "add_bos_token": True}
    named = {f"tokenizer.ggml.{key}": v for key, v in keys.items()}
    return named | {"tokenizer.chat_template": "{{ messages[0].content }}"}


_QWEN_METADATA = {key.replace("llama", "qwen2"): v for key, v in LLAMA_METADATA.items()}

Document = tuple[dict[str, Any], bytes]
"""A GGUF file as a tree (counts, metadata, tensor table), and its tensors' bytes."""


def gguf_models() -> list[list[Document]]:
    """Models in one file, and then in several."""
    rng = np.random.default_rng(0)
    models = [
        [_model(rng, architecture, type, kind)]
        for architecture, type, kind in (
            ("llama", "F32", "gpt2"),
            ("llama", "Q4_1", "llama"),
            ("llama", "Q8_0", "gpt2"),
            ("qwen2", "F16", "llama"),
            ("llama", "BF16", "gpt2"),
        )
    ]
    metadata = {**LLAMA_METADATA, **_tokenizer_metadata("gemma")}
    metadata |= {"llama.embedding_length": 256, "llama.feed_forward_length": 256}
    tensors = _k_quants(rng)
    return [
        *models,
        [_document(metadata, tensors)],
        _shards(metadata, tensors, 2),
        _shards(dict(LLAMA_METADATA), llama_tensors(rng, "Q5_1", vocab=48), 3),
    ]


def _model(rng: np.random.Generator, architecture: str, type: str, kind: str) -> Document:
    metadata = dict(LLAMA_METADATA if architecture == "llama" else _QWEN_METADATA)
    metadata |= {"general.architecture": architecture, "llama.rope.dimension_count": 16}
    if architecture == "qwen2":
        metadata.pop("llama.rope.dimension_count")
    if type == "Q8_0":
        scaling = {"type": "linear", "factor": 2.0, "original_context_length": 64}
        metadata |= {f"llama.rope.scaling.{key}": v for key, v in scaling.items()}
    metadata |= {"general.alignment": 32, **_tokenizer_metadata(kind)}
    tensors = llama_tensors(rng, type, vocab=48)
    if architecture == "qwen2":
        for name, size in (("q", 64), ("k", 32), ("v", 32)):
            bias = rng.normal(0, 0.1, size).astype("<f4")
            tensors[f"blk.0.attn_{name}.bias"] = Raw("F32", (size,), bias.tobytes())
    return _document(metadata, tensors)


def _k_quants(rng: np.random.Generator) -> dict[str, Raw]:
    """A model of 256-wide blocks, the types by turns."""
    tensors = llama_tensors(rng, "Q4_K", vocab=48, d=256, m=256, q=256, kv=128)
    matrices = [name for name, raw in tensors.items() if raw.type == "Q4_K"]
    for i, name in enumerate(matrices):
        type = ("Q4_K", "Q6_K", "Q2_K", "IQ2_XS", "Q5_0", "IQ1_M")[i % 6]
        tensors[name] = random_blocks(rng, type, *tensors[name].shape)
    return tensors


def _shards(metadata: dict[str, Any], tensors: Mapping[str, Raw], count: int) -> list[Document]:
    documents = []
    for number in range(count):
        split = {
            "split.no": Typed("u16", number),
            "split.count": Typed("u16", count),
            "split.tensors.count": Typed("i32", len(tensors)),
        }
        own = {name: tensors[name] for name in list(tensors)[number::count]}
        documents.append(_document({**(metadata if number == 0 else {}), **split}, own))
    return documents


def _document(metadata: dict[str, Any], tensors: Mapping[str, Raw]) -> Document:
    data, table = b"", []
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % 32)
        table.append([name, list(tensor.shape[::-1]), TYPES[tensor.type], len(data)])
        data += tensor.data
    counts = [3, len(tensors), len(metadata)]
    return {"counts": counts, "metadata": metadata, "table": table}, data


def write_model(folder: Path, files: Sequence[bytes]) -> list[Path]:
    """Writes a model's files under the names that belong to their number."""
    n = len(files)
    names = [f"model-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)] if n > 1 else ["model.gguf"]
    paths = [folder / name for name in names]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    return paths


def gguf_bytes(document: Any, data: bytes) -> bytes:
    """Writes a document, however damaged: what a field cannot hold wraps around."""
    version, n_tensors, n_keys = (_integer(x) for x in (*document["counts"], 0, 0, 0)[:3])
    head = b"GGUF" + struct.pack("<IQQ", version % 2**32, n_tensors, n_keys)
    for key, content in document["metadata"].items():
        head += _string(key) + _value(content)
    for entry in document["table"]:
        fields = entry if isinstance(entry, list) else [entry]
        name, dims, kind, offset = (*fields, 0, 0, 0, 0)[:4]
        shape = [_integer(d) for d in dims] if isinstance(dims, list) else [_integer(dims)]
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", _integer(kind) % 2**32, _integer(offset))
    return head + b"\0" * (-len(head) % 32) + data


def _integer(x: Any) -> int:
    finite = isinstance(x, int | float) and x == x and abs(x) < 1e300
    return int(x) % 2**64 if finite else 2**64 - 1


def _string(x: Any) -> bytes:
    data = (x if isinstance(x, str) else repr(x)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _value(x: Any) -> bytes:
    try:
        return value(x)
    except (struct.error, TypeError, OverflowError, UnicodeEncodeError, AttributeError):
        pass
    if isinstance(x, float):
        return value(Typed("f64", x))
    if isinstance(x, int):
        return value(Typed("i64", x) if -(2**63) <= x < 2**63 else Typed("u64", x % 2**64))
    return struct.pack("<I", 8) + _string(x)
