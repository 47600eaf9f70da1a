"""One campaign for each reader: writes the file that belongs to a number, reads it, and judges.

A mutation must end in an error of the documented kinds, or in a model whose tensors are finite
and of the config's shapes, or a tokenizer whose ids are in the vocabulary.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bitlens import load
from bitlens.interp.dictionaries import DictionaryError
from bitlens.interp.probes import ProbeFileError
from bitlens.model.config_error import ConfigError
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.huggingface_config import config_from_huggingface
from bitlens.model.sources.huggingface_tokenizer import tokenizer_from_directory
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.weights.architectures import huggingface_name
from bitlens.model.weights.checkpoint import Checkpoint, CheckpointError
from fuzz import seeds
from fuzz.dictionaries import dictionary_files
from fuzz.mutations import damage_bytes, damage_tree, encode, json_text
from fuzz.probes import probe_files
from safetensors.torch import save
from support.random_models import tensor_shapes

DOCUMENTED = (CheckpointError, DictionaryError, ProbeFileError, FileNotFoundError)
TEXTS = ("the thin 01 été", "", "<s></s>t\0\ud7ff\U0010ffff", "a" * 300 + "\r\n\t")

Campaign = Callable[[Path, int], str]
"""Writes and reads mutation number i in a folder; returns what came of it."""


def judge_checkpoint(checkpoint: Checkpoint, use: bool = True) -> str:
    """Reads every tensor; raises AssertionError for what must not be."""
    expected = tensor_shapes(checkpoint.config)
    assert set(checkpoint.names()) == set(expected)
    for name, shape in expected.items():
        if len(shape) == 2:
            weight = checkpoint.matrix(name).dequantize()
        else:
            weight = checkpoint.vector(name)
        assert tuple(weight.shape) == shape, (name, weight.shape, shape)
        assert bool(torch.isfinite(weight).all()), f"{name} is not finite"
    if checkpoint.tokenizer is not None:
        judge_tokenizer(checkpoint.tokenizer, checkpoint.config.d_vocab)
    if use:
        try:
            model = load(checkpoint, dtype="bf16")
        except ConfigError:  # RoPE scaling that cannot keep its bits is for the torch backend
            model = load(checkpoint, backend="torch")
        logits = model(torch.tensor([[0]]))
        assert tuple(logits.shape) == (1, 1, checkpoint.config.d_vocab)
    return "a model"


def judge_tokenizer(tokenizer: Tokenizer, d_vocab: int) -> str:
    """Encodes and decodes; a tokenizer may refuse a text with a ValueError."""
    for token_id in (tokenizer.bos_id, tokenizer.pad_id, *tokenizer.eos_ids):
        assert token_id is None or 0 <= token_id < d_vocab
    outcome = "a tokenizer"
    for text in TEXTS:
        try:
            ids = tokenizer.encode(text)
            assert all(0 <= token_id < d_vocab for token_id in ids), ids
            assert len(ids) <= 64 * (len(text.encode()) + 1)
            tokenizer.decode(ids)
            tokenizer.token_strings(ids[:4])
        except ValueError:
            outcome = "a tokenizer that refuses texts"
    return outcome


def gguf(folder: Path, number: int) -> str:
    rng = random.Random(f"gguf {number}")
    documents = rng.choice(_GGUF)
    files = [seeds.gguf_bytes(*document) for document in documents]
    damaged = rng.randrange(len(files))
    files[damaged] = _damaged_gguf(*documents[damaged], rng)
    paths = seeds.write_model(folder, files)
    if len(paths) > 1 and rng.random() < 0.05:
        rng.choice(paths).unlink()
    return judge_checkpoint(open_checkpoint(rng.choice(paths)))


def _damaged_gguf(document: dict[str, Any], data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return damage_bytes(seeds.gguf_bytes(document, b""), rng) + data
    if rng.random() < 0.1:
        return seeds.gguf_bytes(document, damage_bytes(data, rng))
    tree = {key: damage_tree(document[key], rng) for key in ("metadata", "table", "counts")}
    part = rng.choice(("metadata", "metadata", "table", "counts"))
    return seeds.gguf_bytes(document | {part: tree[part]}, data)


def config_json(folder: Path, number: int) -> str:
    rng = random.Random(f"config {number}")
    name = rng.choice(list(seeds.CONFIGS))
    tree = seeds.config_json(name)
    if rng.random() < 0.25:
        damaged = damage_bytes(json.dumps(tree).encode(), rng)
    else:
        damaged = encode(json_text(damage_tree(tree, rng), rng))
    (folder / "config.json").write_bytes(damaged)
    (folder / "model.safetensors").write_bytes(_weights(name))
    return judge_checkpoint(open_checkpoint(folder))


def safetensors(folder: Path, number: int) -> str:
    rng = random.Random(f"safetensors {number}")
    name = rng.choice(list(seeds.CONFIGS))
    (folder / "config.json").write_text(json.dumps(seeds.config_json(name)))
    data = _weights(name)
    size = 8 + int.from_bytes(data[:8], "little")
    index: Path = folder / "model.safetensors.index.json"
    index.unlink(missing_ok=True)
    kind = rng.randrange(8)
    if kind < 3:
        data = damage_bytes(data[:size], rng) + data[size:]
    elif kind == 3:
        data = data[:size] + damage_bytes(data[size:], rng)
    elif kind == 4:
        names = [name for name in json.loads(data[8:size]) if name != "__metadata__"]
        tree = {"metadata": {"total_size": 3}, "weight_map": dict.fromkeys(names, index.stem[:-6])}
        index.write_text(json_text(damage_tree(tree, rng), rng), errors="surrogatepass")
    else:
        header = json.loads(data[8:size])
        tree = damage_tree(header, rng) if kind == 5 else _plausible(header, rng)
        text = encode(json_text(tree, rng))
        data = len(text).to_bytes(8, "little") + text + data[size:]
    (folder / "model.safetensors").write_bytes(data)
    return judge_checkpoint(open_checkpoint(folder))


def _plausible(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The header with one thing wrong that the format itself allows."""
    names = [name for name in header if name != "__metadata__"]
    one, other = rng.choice(names), rng.choice(names)
    kind = rng.randrange(5)
    if kind == 0:
        header[one]["dtype"] = rng.choice(("I32", "U32", "F16", "BF16", "I16", "F8_E4M3", "F64"))
    elif kind == 1:
        header[one]["shape"] = [*header[one]["shape"][::-1], *[1] * rng.randrange(2)]
    elif kind == 2:
        header[one], header[other] = header[other], header[one]
    elif kind == 3:
        header[one + rng.choice(("x", "\x1b[2J", "\0", "x" * 10_000))] = header.pop(one)
    else:
        header["__metadata__"] = {"format": rng.choice(("pt", "flax", "", "x" * 10_000))}
    return header


def tokenizer_json(folder: Path, number: int) -> str:
    rng = random.Random(f"tokenizer {number}")
    for name, tree in _TOKENIZER.items():
        (folder / name).write_text(json.dumps(tree))
    name = rng.choice(("tokenizer.json",) * 6 + tuple(_TOKENIZER))
    kind = rng.random()
    if kind < 0.25:
        damaged = damage_bytes(json.dumps(_TOKENIZER[name]).encode(), rng)
    elif kind < 0.4 and name == "tokenizer.json":
        parts = dict(rng.choices(seeds.HOSTILE_PARTS, k=rng.randrange(1, 3)))
        damaged = json.dumps(_TOKENIZER[name] | parts).encode()
    else:
        damaged = encode(json_text(damage_tree(_TOKENIZER[name], rng), rng))
    (folder / name).write_bytes(damaged)
    tokenizer = tokenizer_from_directory(folder, 64)
    assert tokenizer is not None
    return judge_tokenizer(tokenizer, 64)


CAMPAIGNS: Mapping[str, Campaign] = {
    "gguf": gguf,
    "safetensors": safetensors,
    "tokenizer.json": tokenizer_json,
    "config.json": config_json,
    "dictionary": dictionary_files,
    "probe": probe_files,
}

_GGUF = seeds.gguf_models()
_TOKENIZER: dict[str, Any] = seeds.tokenizer_files()
_SAFETENSORS: dict[str, bytes] = {}


def _weights(name: str) -> bytes:
    """A safetensors file for the config; bf16 and fp16 take turns with fp32."""
    if name not in _SAFETENSORS:
        config = config_from_huggingface(seeds.config_json(name))
        torch.manual_seed(0)
        tensors = {}
        for i, (tensor, shape) in enumerate(tensor_shapes(config).items()):
            dtype = (torch.float32, torch.bfloat16, torch.float16)[i % 3]
            tensors[huggingface_name(tensor, config)] = (torch.randn(shape) * 0.1).to(dtype)
        _SAFETENSORS[name] = save(tensors)
    return _SAFETENSORS[name]
