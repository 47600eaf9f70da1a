"""Block formats that are widened when loaded: the values, how they are kept, what is refused."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.ops.packed import narrowest, pack
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import BLOCKS, CheckpointError, Format, StoredMatrix
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_writer import BLOCKS as WRITTEN
from support.gguf_writer import LLAMA_METADATA, Raw, dense, gguf_bytes, llama_tensors, random_blocks

WIDENED = [format for format in Format if not format.in_kernels]
# Shapes whose rows hold whole blocks of 256.
SHAPE = {"d": 256, "m": 512, "q": 256, "kv": 128}
METADATA = {
    **LLAMA_METADATA,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
}

f32 = np.float32


def matrix(format: Format, n: int, k: int, seed: int = 0) -> StoredMatrix:
    raw = random_blocks(np.random.default_rng(seed), format.name, n, k)
    data = torch.frombuffer(bytearray(raw.data), dtype=torch.uint8).view(n, -1)
    return StoredMatrix(format, n, k, data)


def by_the_package(stored: StoredMatrix) -> torch.Tensor:
    return torch.from_numpy(
        dequantize(stored.data.numpy(), GGMLQuantizationType[stored.format.name])
    )


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert torch.equal(found.contiguous().view(torch.int32), expected.view(torch.int32))


def half(block: bytes, at: int) -> np.float32:
    return f32(np.frombuffer(block, "<f2", 1, at)[0])


def q5_0(block: bytes) -> list[np.float32]:
    """ggml's block_q5_0: d, 32 fifth bits, 16 bytes of two low nibbles."""
    d, (high,) = half(block, 0), struct.unpack_from("<I", block, 2)
    low = [byte & 15 for byte in block[6:]] + [byte >> 4 for byte in block[6:]]
    return [d * f32((q | (high >> j & 1) << 4) - 16) for j, q in enumerate(low)]


def q4_k(block: bytes) -> list[np.float32]:
    """ggml's block_q4_K: d, dmin, 8 six-bit scales and minima in 12 bytes, 128 bytes of nibbles."""
    d, dmin, packed, nibbles = half(block, 0), half(block, 2), block[4:16], block[16:]
    weights = []
    for j in range(8):
        if j < 4:
            scale, least = packed[j] & 63, packed[j + 4] & 63
        else:
            scale = packed[j + 4] & 15 | packed[j - 4] >> 6 << 4
            least = packed[j + 4] >> 4 | packed[j] >> 6 << 4
        d_j, m_j = d * f32(scale), dmin * f32(least)
        for byte in nibbles[j // 2 * 32 : j // 2 * 32 + 32]:
            weights.append(d_j * f32(byte >> 4 if j % 2 else byte & 15) - m_j)
    return weights


def q6_k(block: bytes) -> list[np.float32]:
    """ggml's block_q6_K: 128 bytes of low nibbles, 64 of upper pairs of bits, 16 int8 scales, d."""
    low, high, scales = block[:128], block[128:192], struct.unpack_from("<16b", block, 192)
    d = half(block, 208)
    weights = [f32(0)] * 256
    for i in range(256):
        part, j = divmod(i, 128)
        quarter, lane = divmod(j, 32)
        byte = low[part * 64 + lane + quarter % 2 * 32]
        upper = high[part * 32 + lane] >> 2 * quarter & 3
        q = (byte >> 4 if quarter >= 2 else byte & 15) | upper << 4
        weights[i] = d * f32(scales[part * 8 + quarter * 2 + lane // 16]) * f32(q - 32)
    return weights


SCALAR: Mapping[Format, Callable[[bytes], list[np.float32]]] = {
    Format.Q5_0: q5_0,
    Format.Q4_K: q4_k,
    Format.Q6_K: q6_k,
}


@given(seed=st.integers(0, 2**32), format=st.sampled_from(list(SCALAR)))
def test_weights_are_those_of_the_published_layout(seed: int, format: Format) -> None:
    """An own scalar reading of ggml's structs, in fp32 and rounded at every step."""
    stored = matrix(format, 2, 512, seed)
    n_bytes = BLOCKS[format].bytes
    raw = stored.data.numpy().tobytes()
    expected = [
        w for at in range(0, len(raw), n_bytes) for w in SCALAR[format](raw[at : at + n_bytes])
    ]
    assert_same_bits(stored.dequantize(), torch.tensor(np.array(expected)).view(2, 512))


@pytest.mark.parametrize("format", WIDENED, ids=lambda f: f.name)
def test_weights_are_those_of_the_gguf_package(format: Format) -> None:
    layout = BLOCKS[format]
    assert WRITTEN[format.name][1:] == (layout.weights, layout.bytes, layout.scales)
    stored = matrix(format, 321, 1024)  # more than a chunk, and not a multiple of a panel
    assert len(list(stored.chunks())) > 1
    expected = by_the_package(stored)
    assert float(expected.std()) > 0
    assert_same_bits(stored.dequantize(), expected)
    assert_same_bits(torch.cat([rows for _, rows in stored.chunks()]), expected)
    assert_same_bits(stored.rows(5, 9), expected[5:9])


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("format", [Format.Q4_K, Format.Q5_0], ids=lambda f: f.name)
def test_panels_hold_the_values_exactly(format: Format, rounded: bool) -> None:
    stored = matrix(format, 321, 1024)
    expected = by_the_package(stored)
    assert narrowest(stored) is Format.F32
    target = Format.BF16 if rounded else Format.F32
    packed = pack(stored, target, rounded=rounded)
    assert packed.format is target
    assert_same_bits(packed.rows(), expected.bfloat16().float() if rounded else expected)
    wide = pack(stored, Format.F32, rounded=rounded)
    assert_same_bits(wide.rows(), packed.rows())


@pytest.mark.parametrize(
    ("scale", "format"), [(1.0, Format.BF16), (1 + 2**-5, Format.F16), (1 + 2**-9, Format.F32)]
)
def test_the_narrowest_exact_format_is_found(scale: float, format: Format) -> None:
    stored = matrix(Format.Q5_0, 64, 32)
    stored.data[:, :2] = torch.tensor([scale]).half().view(torch.uint8)
    assert narrowest(stored) is format
    assert_same_bits(pack(stored, format).rows(), by_the_package(stored))
    stored.data[40, :2] = torch.tensor([1 + 2**-10]).half().view(torch.uint8)
    assert narrowest(stored) is Format.F32


@given(data=st.data(), format=st.sampled_from([f for f in Format if f in BLOCKS]))
def test_finite_scales_are_finite_weights(data: st.DataObject, format: Format) -> None:
    """Any bytes at all: what is_finite says of the scales holds for every weight."""
    layout = BLOCKS[format]
    raw = bytearray(matrix(format, 1, 256, data.draw(st.integers(0, 99))).data.numpy().tobytes())
    places = [at + 1 for at in layout.scales] or [55]
    at = data.draw(st.sampled_from(places)) + layout.bytes * data.draw(
        st.integers(0, 256 // layout.weights - 1)
    )
    raw[at] = data.draw(st.sampled_from([0x00, 0x7B, 0x7C, 0x7E, 0x80, 0xFB, 0xFC, 0xFF]))
    stored = StoredMatrix(format, 1, 256, torch.frombuffer(raw, dtype=torch.uint8)[None])
    assert stored.is_finite() == bool(torch.isfinite(stored.dequantize()).all())


@pytest.mark.parametrize("type", ["Q2_K", "Q4_K", "Q6_K", "IQ4_XS"])
def test_a_file_of_blocks_is_the_file_of_their_values(tmp_path: Path, type: str) -> None:
    """Through q and k rows too, which are reordered: the same bits as from an F32 file."""
    blocks = llama_tensors(np.random.default_rng(0), type, **SHAPE)
    values = {}
    for name, raw in blocks.items():
        data = np.frombuffer(raw.data, "u1").reshape(raw.shape[0], -1)
        kind = GGMLQuantizationType[type]
        values[name] = raw if raw.type == "F32" else dense(dequantize(data, kind))
    models = {}
    for name, tensors in (("blocks", blocks), ("values", values)):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(gguf_bytes(METADATA, tensors))
        models[name] = path
    tokens = torch.tensor([[1, 5, 9, 30]])
    for options in ({}, {"dtype": "bf16"}, {"backend": "torch"}):
        found, expected = (bitlens.load(models[n], **options) for n in ("blocks", "values"))
        assert torch.equal(found(tokens), expected(tokens))
        assert found.storage() == expected.storage()
    checkpoint = open_checkpoint(models["blocks"])
    assert checkpoint.matrix("blocks.0.mlp.down.weight").format.name == type


def test_shards_without_rows_are_packed() -> None:
    """A rank of a group may own nothing of a matrix."""
    stored = matrix(Format.Q4_K, 4, 256)
    nothing = dataclasses.replace(stored, n=0, data=stored.data[:0])
    assert pack(nothing, narrowest(nothing)).rows().shape == (0, 256)


@pytest.mark.parametrize("type", ["Q4_K", "IQ1_M", "Q5_0"])
def test_infinite_scales_and_wrong_sizes_are_named(tmp_path: Path, type: str) -> None:
    tensors = llama_tensors(np.random.default_rng(0), type, **SHAPE)
    path = tmp_path / "m.gguf"
    damaged = bytearray(tensors["blk.0.ffn_up.weight"].data)
    damaged[1::2] = b"\xff" * len(damaged[1::2])
    path.write_bytes(
        gguf_bytes(
            METADATA, tensors | {"blk.0.ffn_up.weight": Raw(type, (512, 256), bytes(damaged))}
        )
    )
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"m\.gguf: tensor 'blocks\.0\.mlp\.up\.weight'.*NaN"):
        checkpoint.matrix("blocks.0.mlp.up.weight")
    weights = WRITTEN[type][1]
    path.write_bytes(gguf_bytes(METADATA, {"x": Raw(type, (1, weights + 1), b"\0" * 512)}))
    with pytest.raises(CheckpointError, match=f"whole blocks of {weights}, got {weights + 1}"):
        open_checkpoint(path)
    whole = gguf_bytes(METADATA, tensors)
    path.write_bytes(whole[:-40])
    with pytest.raises(CheckpointError, match="ends at byte"):
        open_checkpoint(path)
    with pytest.raises(ValueError, match="needs contiguous data"):
        StoredMatrix(Format[type], 1, 256, torch.zeros(1, 7, dtype=torch.uint8))


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gguf.quants", None)
    with pytest.raises(RuntimeError, match=r"type Q4_K need the gguf package.*pip install 'gguf>="):
        matrix(Format.Q4_K, 1, 256).dequantize()
    assert matrix(Format.Q4_0, 1, 32).dequantize().shape == (1, 32)


def test_the_package_is_imported_only_when_needed(tmp_path: Path) -> None:
    """It takes half as long to import as bitlens."""
    for type, needed in (("Q4_0", False), ("Q4_K", True)):
        path = tmp_path / f"{type}.gguf"
        path.write_bytes(
            gguf_bytes(METADATA, llama_tensors(np.random.default_rng(0), type, **SHAPE))
        )
        code = f"import sys, bitlens; bitlens.load({str(path)!r}); sys.exit('gguf' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], check=False)
        assert done.returncode == needed
