"""How weights are stored does not show: packed in their own format or widened to fp32."""

from __future__ import annotations

import dataclasses

import bitlens
import numpy as np
import pytest
import torch
from bitlens.audit.invariance.observation import cut
from bitlens.model.load import load
from bitlens.model.weights.checkpoint import BLOCKS, DENSE_DTYPES, Format, StoredMatrix
from invariance.subjects import (
    DTYPES,
    Views,
    assert_same,
    check_cut,
    count_different,
    draw_tokens,
    dtypes_of,
)
from support.gguf_writer import random_blocks
from support.random_models import CONFIGS, MemoryReader, random_checkpoint

# Rows of quantised formats hold whole blocks of 32; 544 = two leaves and 32 more.
SHAPE = {"d_model": 288, "d_head": 32, "d_mlp": 544, "attn_scale": 32**-0.5}


class FormatReader(MemoryReader):
    """A reader whose matrices are stored in one format; random blocks where it is quantised."""

    def __init__(self, tensors: dict[str, torch.Tensor], format: Format) -> None:
        super().__init__(tensors)
        self.format = format

    def read(self, name: str) -> StoredMatrix:
        stored = super().read(name)
        if len(self.shapes[name]) == 1:
            return stored
        if self.format in DENSE_DTYPES:
            return dataclasses.replace(
                stored, format=self.format, data=stored.data.to(DENSE_DTYPES[self.format])
            )
        rng = np.random.default_rng(sum(name.encode()))
        raw = random_blocks(rng, self.format.name, stored.n, stored.k)
        data = torch.frombuffer(bytearray(raw.data), dtype=torch.uint8).view(stored.n, -1)
        assert data.shape[1] == stored.k // 32 * BLOCKS[self.format].bytes
        return StoredMatrix(self.format, stored.n, stored.k, data)


@pytest.mark.parametrize("format", [f for f in Format if f.in_kernels], ids=lambda f: f.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_is_fp32_panels(format: Format, dtype: str) -> None:
    known = [name for name in CONFIGS if dtype in dtypes_of(name)]
    architecture = known[format % len(known)]
    checkpoint = random_checkpoint(architecture, **SHAPE)
    reader = FormatReader(checkpoint.reader.tensors, format)  # type: ignore[attr-defined]
    checkpoint = dataclasses.replace(checkpoint, reader=reader)
    packed = load(checkpoint, dtype=dtype)
    wide = load(checkpoint, dtype=dtype, storage="fp32")
    assert set(wide.storage()) == {"F32"}
    assert set(packed.storage()) == {format.name if dtype == "fp32" else "BF16"}
    if dtype != "fp32" or format is not Format.F32:
        assert packed.weight_bytes() < wide.weight_bytes()
    tokens_P = draw_tokens(packed, 70)
    expected = Views(wide).alone(tokens_P)
    for isa in bitlens._core.available_isas():
        bitlens._core.set_isa(isa)
        for n in (1, 2, 5, 70 if isa != "generic" else 9):  # GEMV, and GEMM of several heights
            assert_same(Views(packed)(tokens_P[None, :n])[0], cut(expected, 0, n))
    check_cut(Views(packed, names=[]), tokens_P, Views(wide, names=[]).alone(tokens_P), [3, 64])


def test_exact_halves_are_stored_as_halves() -> None:
    """fp32 matrices whose values all fit a narrower format are kept in it, others are not."""
    checkpoint = random_checkpoint("llama", **SHAPE)
    tensors = checkpoint.reader.tensors  # type: ignore[attr-defined]
    tensors["blocks.0.attn.q.weight"] = tensors["blocks.0.attn.q.weight"].bfloat16().float()
    tensors["blocks.0.mlp.up.weight"] = tensors["blocks.0.mlp.up.weight"].half().float()
    packed, wide = load(checkpoint), load(checkpoint, storage="fp32")
    assert set(packed.storage()) == {"F32", "BF16", "F16"}
    tokens_P = draw_tokens(packed, 20)
    assert_same(Views(packed).alone(tokens_P), Views(wide).alone(tokens_P))
    tensors["blocks.0.mlp.up.weight"][0, 0] += 2.0**-12
    assert count_different(
        Views(load(checkpoint)).alone(tokens_P), Views(packed).alone(tokens_P)
    ), "one weight moved and nothing showed"
