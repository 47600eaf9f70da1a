"""Writes small GGUF files for tests, independently of the reader under test."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DENSE = {"F32": 0, "F16": 1, "BF16": 30}
# ggml_type; weights and bytes of a block, and where its fp16 scales stand, as ggml-common.h has it.
BLOCKS: Mapping[str, tuple[int, int, int, tuple[int, ...]]] = {
    "Q4_0": (2, 32, 18, (0,)),
    "Q4_1": (3, 32, 20, (0, 2)),
    "Q5_0": (6, 32, 22, (0,)),
    "Q5_1": (7, 32, 24, (0, 2)),
    "Q8_0": (8, 32, 34, (0,)),
    "Q2_K": (10, 256, 84, (80, 82)),
    "Q3_K": (11, 256, 110, (108,)),
    "Q4_K": (12, 256, 144, (0, 2)),
    "Q5_K": (13, 256, 176, (0, 2)),
    "Q6_K": (14, 256, 210, (208,)),
    "IQ2_XXS": (16, 256, 66, (0,)),
    "IQ2_XS": (17, 256, 74, (0,)),
    "IQ3_XXS": (18, 256, 98, (0,)),
    "IQ1_S": (19, 256, 50, (0,)),
    "IQ4_NL": (20, 32, 18, (0,)),
    "IQ3_S": (21, 256, 110, (0,)),
    "IQ2_S": (22, 256, 82, (0,)),
    "IQ4_XS": (23, 256, 136, (0,)),
    "IQ1_M": (29, 256, 56, ()),
    "TQ1_0": (34, 256, 54, (52,)),
    "TQ2_0": (35, 256, 66, (64,)),
}
TYPES = DENSE | {name: number for name, (number, *_) in BLOCKS.items()}


@dataclass
class Raw:
    """A tensor as stored: shape outermost first, and its bytes."""

    type: str
    shape: tuple[int, ...]
    data: bytes


@dataclass
class Typed:
    """A metadata value with an explicit GGUF type; `value` may be a list for arrays."""

    type: str
    value: Any


_SCALARS = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "i16": (3, "h"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "u64": (10, "Q"),
    "i64": (11, "q"),
    "f64": (12, "d"),
}


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(v: Any) -> bytes:
    """Type number and payload: bool, int as u32, float as f32, str, list, or Typed."""
    if isinstance(v, Typed):
        number, code = _SCALARS[v.type]
        if isinstance(v.value, list):
            items = struct.pack(f"<{len(v.value)}{code}", *v.value)
            return struct.pack("<IIQ", 9, number, len(v.value)) + items
        return struct.pack(f"<I{code}", number, v.value)
    if isinstance(v, bool):
        return value(Typed("bool", v))
    if isinstance(v, int):
        return value(Typed("u32", v))
    if isinstance(v, float):
        return value(Typed("f32", v))
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    items = [value(item) for item in v]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(v)) + b"".join(i[4:] for i in items)


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Raw],
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(key) + value(v) for key, v in metadata.items())
    data = b""
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        dims = tensor.shape[::-1]
        head += string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", TYPES[tensor.type], len(data))
        data += tensor.data
    return head + b"\0" * (-len(head) % alignment) + data


def dense(array: np.ndarray, type: str = "F32") -> Raw:
    """Stores fp32 values; BF16 keeps the upper halves (exact for values that are bf16)."""
    if type == "BF16":
        data = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = array.astype({"F32": "<f4", "F16": "<f2"}[type]).tobytes()
    return Raw(type, array.shape, data)


def random_blocks(rng: np.random.Generator, type: str, n: int, k: int) -> Raw:
    """A random quantised matrix with scales that keep a small model sane."""
    _, weights, n_bytes, scales = BLOCKS[type]
    blocks = rng.integers(0, 256, (n * k // weights, n_bytes), dtype="u1")
    # The other types multiply their scale by integers of more bits.
    spread = 0.02 if type in ("Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q5_1") else 2e-4
    for at in scales:
        halves = rng.normal(0, spread, len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = halves[:, None].view("u1")
    if type == "IQ1_M":  # its scale's upper four bits: 2^-15 to 2^-12
        blocks[:, 55] &= 0x0F
    return Raw(type, (n, k), blocks.tobytes())


LLAMA_METADATA: Mapping[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
}


def llama_tensors(
    rng: np.random.Generator,
    type: str = "F32",
    *,
    layers: int = 1,
    vocab: int = 40,
    d: int = 64,
    m: int = 96,
    q: int = 64,
    kv: int = 32,
) -> dict[str, Raw]:
    """The tensors of a tied Llama, matrices in `type`, norms in F32."""

    def matrix(n: int, k: int) -> Raw:
        if type in BLOCKS:
            return random_blocks(rng, type, n, k)
        values = rng.normal(0, 0.05, (n, k)).astype("f4")
        values = (values.view("u4") & 0xFFFF0000).view("f4") if type == "BF16" else values
        return dense(values, type)

    def norm() -> Raw:
        return dense(1 + rng.normal(0, 0.1, d))

    tensors = {"token_embd.weight": matrix(vocab, d)}
    for i in range(layers):
        block = f"blk.{i}."
        tensors |= {
            block + "attn_norm.weight": norm(),
            block + "attn_q.weight": matrix(q, d),
            block + "attn_k.weight": matrix(kv, d),
            block + "attn_v.weight": matrix(kv, d),
            block + "attn_output.weight": matrix(d, q),
            block + "ffn_norm.weight": norm(),
            block + "ffn_gate.weight": matrix(m, d),
            block + "ffn_up.weight": matrix(m, d),
            block + "ffn_down.weight": matrix(d, m),
        }
    return tensors | {"output_norm.weight": norm()}


GEMMA2_METADATA: Mapping[str, Any] = {
    **{
        key.replace("llama.", "gemma2."): v
        for key, v in LLAMA_METADATA.items()
        if "rope" not in key
    },
    "general.architecture": "gemma2",
    "gemma2.block_count": 3,
    "gemma2.attention.key_length": 16,
    "gemma2.attention.value_length": 16,
    "gemma2.attention.sliding_window": 8,
    "gemma2.attn_logit_softcapping": 50.0,
    "gemma2.final_logit_softcapping": 30.0,
}


def gemma2_tensors(rng: np.random.Generator) -> dict[str, Raw]:
    """As `llama_tensors`, with Gemma's two more norms a block."""
    tensors = llama_tensors(rng, layers=3)
    for i in range(3):
        for name in ("post_attention_norm", "post_ffw_norm"):
            tensors[f"blk.{i}.{name}.weight"] = dense(1 + rng.normal(0, 0.1, 64))
    return tensors


def write_llama(path: Path, type: str = "F32", seed: int = 0, **metadata: Any) -> Path:
    """A tiny one-layer Llama without a tokenizer; metadata keys may be added or replaced."""
    rng = np.random.default_rng(seed)
    named = {key.replace("__", "."): v for key, v in metadata.items()}
    path.write_bytes(gguf_bytes({**LLAMA_METADATA, **named}, llama_tensors(rng, type)))
    return path


def write_shards(
    directory: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Raw], count: int
) -> list[Path]:
    """A model in `count` files, every count-th tensor in each, as llama-gguf-split names them."""
    paths = []
    for number in range(count):
        split = {
            "split.no": Typed("u16", number),
            "split.count": Typed("u16", count),
            "split.tensors.count": Typed("i32", len(tensors)),
        }
        own = {name: tensors[name] for name in list(tensors)[number::count]}
        path = directory / f"model-{number + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(gguf_bytes({**(metadata if number == 0 else {}), **split}, own))
        paths.append(path)
    return paths
