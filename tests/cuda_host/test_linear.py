"""linear and embedding over every storage: the CPU's bits, decoding and prefill alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from bitlens.model.ops import kernels as cpu
from bitlens.model.ops.packed import PackedWeight, pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_kernels,
    launching,
    threads_in_order,
)

F32, BF16 = torch.float32, torch.bfloat16
DENSE = {Format.F32: F32, Format.BF16: BF16, Format.F16: torch.float16}
BLOCK_BYTES = {Format.Q8_0: 34, Format.Q4_0: 18, Format.Q4_1: 20}
FORMATS = [*DENSE, *BLOCK_BYTES]


@pytest.fixture(params=ORDERS, autouse=True)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


def weight(format: Format, n: int, k: int) -> PackedWeight:
    """A packed matrix of random numbers; of blocks with finite scales."""
    generator = torch.Generator().manual_seed(n + k)
    if format in DENSE:
        values = torch.randn(n, k, generator=generator).to(DENSE[format])
        return pack(StoredMatrix(format, n, k, values))
    blocks = torch.randint(0, 256, (n, k // 32, BLOCK_BYTES[format]), generator=generator)
    blocks[..., 1] = blocks[..., 1] % 64  # a positive fp16 scale, below 2
    if format is Format.Q4_1:
        blocks[..., 3] = blocks[..., 3] % 64 + 128
    return pack(StoredMatrix(format, n, k, blocks.to(torch.uint8).flatten(1).contiguous()))


def activations(m: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    return cpu.cast(torch.randn(m, k, generator=torch.Generator().manual_seed(m)), dtype)


SHAPES = [
    (1, 33, 32, F32, F32),
    (3, 40, 288, BF16, BF16),
    (5, 64, 2336, BF16, F32),
    (8, 31, 256, F32, F32),
    (9, 65, 288, BF16, F32),
    (130, 70, 544, F32, F32),
]
"""Rows, outputs and depths around a panel, a leaf, a tile, and the depth that eight warps share;
how activations and outputs are stored."""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("m", "n", "k", "dtype", "out"), SHAPES)
def test_linear(
    format: Format, m: int, n: int, k: int, dtype: torch.dtype, out: torch.dtype
) -> None:
    packed, bias, x = weight(format, n, k), torch.randn(n), activations(m, k, dtype)
    with launching("linear_few_rows" if m <= 8 else "linear_tiled"):
        found = host_kernels().linear(x, packed.data, format, n, bias, out)
    assert_same_bits(found, cpu.linear(x, packed.data, format, n, bias, out))


@pytest.mark.parametrize("format", DENSE)
@pytest.mark.parametrize("k", [1, 2, 3, 15, 255, 257, 263])
def test_depths_that_fill_no_step(format: Format, k: int) -> None:
    packed = weight(format, 5, k)
    for m in (1, 2, 11):
        x = activations(m, k, F32)
        found = host_kernels().linear(x, packed.data, format, 5, None, F32)
        assert_same_bits(found, cpu.linear(x, packed.data, format, 5, None, F32))


def test_sums_that_are_minus_zero() -> None:
    """Products too small for fp32 leave -0; adding what is beyond k would make it +0."""
    packed = pack(StoredMatrix(Format.F32, 2, 3, torch.full((2, 3), -(2.0**-80))))
    for m in (1, 9):
        x = torch.full((m, 3), 2.0**-80)
        wanted = cpu.linear(x, packed.data, Format.F32, 2, None, F32)
        assert bool(torch.signbit(wanted).all())
        assert_same_bits(host_kernels().linear(x, packed.data, Format.F32, 2, None, F32), wanted)


def test_decoding_has_the_bits_of_prefill() -> None:
    packed = weight(Format.BF16, 70, 600)
    x = activations(9, 600, BF16)
    whole = host_kernels().linear(x, packed.data, Format.BF16, 70, None, F32)
    for row in range(9):
        one = host_kernels().linear(x[row : row + 1], packed.data, Format.BF16, 70, None, F32)
        assert_same_bits(one[0], whole[row])


def test_leaves_of_another_length_move_bits() -> None:
    """The negative control: a chain over all of k is another number."""
    packed = weight(Format.F32, 8, 600)
    x = activations(1, 600, F32)
    whole = cpu.linear(x, packed.data, Format.F32, 8, None, F32)
    parts = [
        pack(StoredMatrix(Format.F32, 8, 300, h.contiguous())) for h in packed.rows().split(300, 1)
    ]
    halves = [
        host_kernels().linear(x[:, i * 300 : (i + 1) * 300], p.data, Format.F32, 8, None, F32)
        for i, p in enumerate(parts)
    ]
    assert not torch.equal(cpu.add(*halves), whole)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_embedding(format: Format, dtype: torch.dtype) -> None:
    packed, tokens = weight(format, 67, 96), torch.tensor([66, 0, 31, 32, 66])
    for scale in (1.0, 9.75):
        with launching("embedding"):
            found = host_kernels().embedding(tokens, packed.data, format, 67, 96, scale, dtype)
        assert_same_bits(found, cpu.embedding(tokens, packed.data, format, 67, 96, scale, dtype))


def test_embedding_of_an_odd_width() -> None:
    packed, tokens = weight(Format.BF16, 5, 33), torch.tensor([4, 1])
    found = host_kernels().embedding(tokens, packed.data, Format.BF16, 5, 33, 1.0, F32)
    assert_same_bits(found, packed.rows()[tokens])
