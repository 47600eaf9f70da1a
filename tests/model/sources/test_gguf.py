"""The GGUF reader: exact values, row order, and that no damaged file gets through or crashes."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.gguf import rotate_half_rows
from bitlens.model.sources.gguf_config import config_from_gguf
from bitlens.model.sources.gguf_format import read_header
from bitlens.model.weights.checkpoint import (
    BLOCKS,
    Checkpoint,
    CheckpointError,
    Format,
    StoredMatrix,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gguf_writer import (
    LLAMA_METADATA,
    Raw,
    Typed,
    dense,
    gguf_bytes,
    llama_tensors,
    string,
    value,
    write_llama,
)

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]
QUANTISED = [Format.Q8_0, Format.Q4_0, Format.Q4_1]


def read_everything(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {
        name: checkpoint.matrix(name).dequantize() if len(shape) == 2 else checkpoint.vector(name)
        for name, shape in checkpoint.reader.shapes.items()
    }


def nearest_fp32(exact: Fraction) -> float:
    """Correct rounding to fp32 (ties to even) by trying a double's neighbours exactly."""
    guess = np.float32(float(exact))
    candidates = [np.nextafter(guess, np.float32(s * np.inf)) for s in (-1, 1)] + [guess]
    distance = [(abs(Fraction(float(c)) - exact), int(c.view("u4")) & 1) for c in candidates]
    return float(candidates[distance.index(min(distance))])


def exact_weights(format: Format, block: bytes) -> list[Fraction]:
    """The 32 weights of a block, as the format's definition says, in rational arithmetic."""
    d = Fraction(float(np.frombuffer(block, "<f2", 1)[0]))
    if format == Format.Q8_0:
        return [d * q for q in struct.unpack("<32b", block[2:])]
    packed = block[-16:]
    integers = [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]
    if format == Format.Q4_0:
        return [d * (q - 8) for q in integers]
    m = Fraction(float(np.frombuffer(block[2:4], "<f2")[0]))
    return [d * q + m for q in integers]


def finite_half() -> st.SearchStrategy[bytes]:
    bits = st.integers(0, 0xFFFF).filter(lambda b: b & 0x7C00 != 0x7C00)
    return bits.map(lambda b: struct.pack("<H", b))


@given(st.data(), st.sampled_from(QUANTISED))
def test_dequantize_is_the_rounded_exact_value(data: st.DataObject, format: Format) -> None:
    n_halves = 2 if format == Format.Q4_1 else 1
    n_integers = BLOCKS[format].bytes - 2 * n_halves
    blocks = [
        b"".join(data.draw(finite_half()) for _ in range(n_halves))
        + data.draw(st.binary(min_size=n_integers, max_size=n_integers))
        for _ in range(4)
    ]
    raw = torch.frombuffer(bytearray(b"".join(blocks)), dtype=torch.uint8).view(2, -1)
    w = StoredMatrix(format, 2, 64, raw).dequantize()
    expected = [nearest_fp32(x) for block in blocks for x in exact_weights(format, block)]
    assert w.shape == (2, 64)
    assert w.flatten().tolist() == expected


@pytest.mark.parametrize("type", TYPES)
def test_every_type_loads_as_written(tmp_path: Path, type: str) -> None:
    raw = llama_tensors(np.random.default_rng(0), type)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(LLAMA_METADATA, raw))
    checkpoint = open_checkpoint(path)
    assert checkpoint.tokenizer is None
    stored = checkpoint.matrix("blocks.0.mlp.down.weight")
    assert (stored.format.name, stored.n, stored.k) == (type, 64, 96)
    assert bytes(stored.data.view(torch.uint8).numpy()) == raw["blk.0.ffn_down.weight"].data
    norm = np.frombuffer(raw["output_norm.weight"].data, "<f4")
    assert torch.equal(checkpoint.vector("ln_final.weight"), torch.tensor(norm))
    assert checkpoint.config.tie_embeddings
    assert "unembed.weight" not in checkpoint


@pytest.mark.parametrize("type", ["F32", "BF16", "Q8_0", "Q4_1"])
def test_query_and_key_rows_return_to_rotate_half_order(tmp_path: Path, type: str) -> None:
    checkpoint = open_checkpoint(write_llama(tmp_path / "m.gguf", type))
    raw = llama_tensors(np.random.default_rng(0), type)
    for module, heads in (("q", 4), ("k", 2)):
        stored = raw[f"blk.0.attn_{module}.weight"]
        rows = np.frombuffer(stored.data, "u1").reshape(
            heads, -1, 2, len(stored.data) // stored.shape[0]
        )
        # What transformers' reader does to undo llama.cpp's permutation.
        expected = rows.swapaxes(1, 2).reshape(stored.shape[0], -1)
        found = checkpoint.matrix(f"blocks.0.attn.{module}.weight").data.view(torch.uint8)
        assert np.array_equal(found.reshape(stored.shape[0], -1).numpy(), expected)


@given(st.integers(1, 6), st.integers(1, 8))
def test_rotate_half_rows_undoes_the_converter(n_heads: int, half: int) -> None:
    w = torch.arange(n_heads * 2 * half)
    permuted = w.view(n_heads, 2, half).swapaxes(1, 2).reshape(-1)  # as convert_hf_to_gguf.py
    assert torch.equal(permuted[rotate_half_rows(len(w), n_heads)], w)


def test_qwen_rows_are_not_permuted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    metadata = {k.replace("llama.", "qwen2."): v for k, v in LLAMA_METADATA.items()}
    metadata["general.architecture"] = "qwen2"
    raw = llama_tensors(rng)
    for module, size in (("q", 64), ("k", 32), ("v", 32)):
        raw[f"blk.0.attn_{module}.bias"] = dense(rng.normal(size=size))
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(metadata, raw))
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.attn_bias
    for name in ("weight", "bias"):
        stored = np.frombuffer(raw[f"blk.0.attn_q.{name}"].data, "<f4")
        tensor = read_everything(checkpoint)[f"blocks.0.attn.q.{name}"]
        assert np.array_equal(tensor.flatten().numpy(), stored)


@pytest.mark.parametrize(("layers", "divisor"), [(61, 128), (62, 168), (63, 128)])
def test_gemma3_27b_scales_its_scores_otherwise(layers: int, divisor: int) -> None:
    """Its files do not say so; llama.cpp knows it by its 62 layers."""
    sizes = {"block_count": layers, "embedding_length": 5376, "feed_forward_length": 21504}
    heads = {"head_count": 32, "head_count_kv": 16, "key_length": 128, "value_length": 128}
    heads |= {"sliding_window": 1024, "layer_norm_rms_epsilon": 1e-6}
    sizes |= {f"attention.{name}": v for name, v in heads.items()} | {"context_length": 4096}
    metadata = {f"gemma3.{name}": v for name, v in sizes.items()}
    metadata["general.architecture"] = "gemma3"
    config = config_from_gguf(metadata, {"token_embd.weight": (262144, 5376)})
    assert config.attn_scale == divisor**-0.5


def test_real_model_agrees_with_its_own_bytes(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    assert checkpoint.n_parameters() == 134_515_008
    config = checkpoint.config
    assert (config.n_layers, config.d_model, config.n_heads, config.n_key_value_heads) == (
        30,
        576,
        9,
        3,
    )
    assert config.eps == 1e-5
    assert config.layers[0].rope_theta == 100_000.0
    formats = {checkpoint.matrix(f"blocks.3.mlp.{m}.weight").format for m in ("up", "down")}
    assert formats == {Format.Q4_1}
    assert checkpoint.matrix("embed.weight").format == Format.Q8_0


def test_metadata_of_every_kind(tmp_path: Path) -> None:
    kinds = {"u8": 255, "i8": -128, "u16": 65535, "i16": -3, "u32": 7, "i32": -7, "u64": 2**64 - 1}
    kinds |= {"i64": -(2**63), "f32": 0.5, "f64": 1e300, "bool": True}
    metadata = {f"x.{kind}": Typed(kind, v) for kind, v in kinds.items()}
    metadata |= {f"xs.{kind}": Typed(kind, [v, v]) for kind, v in kinds.items()}
    metadata |= {"x.string": "žluť", "xs.string": ["a", ""], "xs.nested": [[1, 2], [], [3]]}
    path = tmp_path / "m.gguf"
    for version in (2, 3):
        path.write_bytes(gguf_bytes(metadata, {}, version=version))
        read = read_header(path).metadata
        for kind, v in kinds.items():
            assert read[f"x.{kind}"] == v
            assert list(read[f"xs.{kind}"]) == [v, v]
        assert (read["x.string"], read["xs.string"]) == ("žluť", ["a", ""])
        assert [list(xs) for xs in read["xs.nested"]] == [[1, 2], [], [3]]


def small_file() -> bytes:
    """A loadable file with metadata of several kinds, a few kilobytes long."""
    metadata = {**LLAMA_METADATA, "general.tags": ["a", "bc"], "general.numbers": [[1, 2], [3]]}
    metadata |= {"llama.embedding_length": 32, "llama.feed_forward_length": 32}
    tensors = llama_tensors(np.random.default_rng(0), "Q4_1", vocab=4, d=32, m=32, q=32, kv=16)
    return gguf_bytes(metadata, tensors)


def test_every_truncation_raises(tmp_path: Path) -> None:
    whole = small_file()
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    read_everything(open_checkpoint(path))
    for length in reversed(range(len(whole))):
        os.truncate(path, length)
        with pytest.raises(CheckpointError, match=r"m\.gguf"):
            open_checkpoint(path)


@settings(max_examples=200)
@given(data=st.data())
def test_mutated_files_raise_or_load_finite(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mutated = bytearray(small_file())
    header = len(mutated) - 5000
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(mutated) - 1)))
        mutated[at] = data.draw(st.sampled_from([0, 1, 9, 0x7F, 0x80, 0xFF, mutated[at] ^ 1]))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(mutated)
    try:
        tensors = read_everything(open_checkpoint(path))
    except CheckpointError as error:
        message = str(error)
    else:
        assert all(torch.isfinite(t).all() for t in tensors.values())
        return
    assert str(path) in message


def header(n_tensors: int = 0, n_keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def key_value(key: str, payload: bytes) -> bytes:
    return header(n_keys=1) + string(key) + payload


def deep_array(depth: int) -> bytes:
    inner = struct.pack("<I", 9) * depth
    return inner[:4] + b"".join(struct.pack("<IQ", 9, 1) for _ in range(depth)) + bytes(64)


HUGE = 2**63

DAMAGED = {
    "empty": (b"", "ends early"),
    "another format": (b"PK\3\4" + bytes(64), "not a GGUF file"),
    "version 1": (header(version=1), "version 1 is not supported"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count": (header(n_tensors=HUGE), "tensors announced"),
    "key count": (header(n_keys=HUGE), "keys announced"),
    "string length": (header(n_keys=1) + struct.pack("<Q", HUGE) + bytes(64), "ends early"),
    "string count": (key_value("k", struct.pack("<IIQ", 9, 8, HUGE)), "strings announced"),
    "number count": (key_value("k", struct.pack("<IIQ", 9, 4, HUGE)), "ends early"),
    "array depth": (key_value("k", deep_array(50)), "nested more than"),
    "value type": (key_value("k", struct.pack("<I", 77)), "type 77"),
    "array type": (key_value("k", struct.pack("<IIQ", 9, 77, 0)), "array type 77"),
    "boolean": (key_value("k", struct.pack("<IB", 7, 2) + bytes(8)), "boolean"),
    "utf-8": (key_value("k", struct.pack("<I", 8) + string(b"\xff\xfe")), "UTF-8"),
    "key twice": (header(n_keys=2) + (string("k") + value(1)) * 2, "'k' appears twice"),
    "alignment": (gguf_bytes({"general.alignment": 24}, {}), "general.alignment"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_headers_are_named(tmp_path: Path, damage: str) -> None:
    content, message = DAMAGED[damage]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def table(
    name: str = "w", dims: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0
) -> bytes:
    info = string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return info + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([table(dims=(1, 1, 1, 1, 1))], "5 dimensions"),
        ([table(dims=())], "0 dimensions"),
        ([table(dims=(0, 3))], "impossible shape"),
        ([table(dims=(2**40, 2**40, 2**40))], "impossible shape"),
        ([table(kind=39)], r"'w' has type MXFP4; supported are F32, F16, Q4_0.*Q4_K.*IQ1_M"),
        ([table(dims=(33, 2), kind=8)], "whole blocks of 32"),
        ([table(offset=8)], "not aligned"),
        ([table(offset=HUGE)], "ends at byte"),
        ([table(), table()], "'w' (appears twice|overlaps)"),
        ([table(), table("v", offset=32)], "'v' overlaps 'w'"),
    ],
)
def test_bad_tensor_tables_are_named(tmp_path: Path, tables: list[bytes], message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(header(n_tensors=len(tables)) + b"".join(tables) + bytes(1024))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general__architecture": "mamba"}, "supported are llama"),
        ({"llama__expert_count": 8}, "expert_count = 8"),
        ({"llama__rope__dimension_count": 8}, "rope.dimension_count"),
        ({"llama__attention__head_count": 5}, "divisor"),
        ({"llama__attention__head_count_kv": 3}, "not a multiple"),
        ({"llama__attention__head_count_kv": [2, 2]}, "per layer"),
        ({"llama__attention__layer_norm_rms_epsilon": 0.0}, "eps"),
        ({"llama__block_count": 2**32 - 1}, "block_count"),
        ({"llama__block_count": 2}, "missing tensors: blk.1.attn_norm.weight"),
        (
            {"llama__feed_forward_length": 128},
            r"blk.0.ffn_gate.weight has shape \[96, 64\], expected",
        ),
        ({"llama__vocab_size": 41}, "vocab_size"),
        ({"llama__residual_scale": 0.5}, "does not know"),
        ({"split__count": Typed("u16", 2), "split__no": 0}, "llama-gguf-split"),
    ],
)
def test_unsupported_metadata_is_named(
    tmp_path: Path, metadata: dict[str, object], message: str
) -> None:
    path = write_llama(tmp_path / "m.gguf", **metadata)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_strangers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = llama_tensors(np.random.default_rng(0)) | {"blk.0.strange.weight": dense(np.ones(8))}
    path.write_bytes(gguf_bytes(LLAMA_METADATA, tensors))
    with pytest.raises(CheckpointError, match="no use for"):
        open_checkpoint(path)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, type: str, bad: float) -> None:
    tensors = llama_tensors(np.random.default_rng(0), type)
    name = "blk.0.attn_k.weight"
    data = bytearray(tensors[name].data)
    scalar = {"F32": "<f4", "BF16": "<f4"}.get(type, "<f2")
    packed = (
        np.array(bad, scalar).tobytes()[-2:] if type == "BF16" else np.array(bad, scalar).tobytes()
    )
    data[: len(packed)] = packed
    tensors[name] = Raw(type, tensors[name].shape, bytes(data))
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(LLAMA_METADATA, tensors))
    checkpoint = open_checkpoint(path)
    checkpoint.matrix("blocks.0.attn.q.weight")
    with pytest.raises(
        CheckpointError, match=r"'blocks\.0\.attn\.k\.weight' holds NaN or infinity"
    ):
        checkpoint.matrix("blocks.0.attn.k.weight")


def test_a_file_cut_after_opening_raises(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "m.gguf")
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match=r"output_norm\.weight.*ends early"):
        checkpoint.vector("ln_final.weight")


def test_asking_for_what_is_not_there(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_llama(tmp_path / "m.gguf"))
    with pytest.raises(KeyError, match="unembed"):
        checkpoint.matrix("unembed.weight")
    with pytest.raises(KeyError, match="2-D"):
        checkpoint.matrix("ln_final.weight")
