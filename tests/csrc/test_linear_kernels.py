"""linear cuts deep products into blocks of rows and of depth; no cut moves a bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from bitlens import _core
from bitlens.model.ops import kernels
from bitlens.model.ops.packed import PackedWeight, pack
from bitlens.model.weights.checkpoint import Format, StoredMatrix

N = 70  # two whole panels and a part of one
DEPTHS = (1, 255, 576, 1900, 4100, 6000)  # from 1900 on, some instruction set cuts the depth
ROWS = 200  # more than one block of rows on every instruction set
FEW = (2, 5, 7, 12, 23)  # rows that are widened in registers on some of them


@pytest.fixture
def isa() -> Iterator[str]:
    before = _core.isa_setting()
    yield before
    _core.set_isa(before)


def weight(k: int, dtype: torch.dtype) -> PackedWeight:
    values = torch.randn(N, k, generator=torch.Generator().manual_seed(k)).to(dtype)
    format = Format.F32 if dtype == torch.float32 else Format.BF16
    return pack(StoredMatrix(format, N, k, values))


def linear(x: torch.Tensor, w: PackedWeight, bias: torch.Tensor) -> torch.Tensor:
    return kernels.linear(x, w.data, w.format, w.n, bias, x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", DEPTHS)
def test_blocks_of_rows_and_depth_move_no_bit(k: int, dtype: torch.dtype, isa: str) -> None:
    w = weight(k, dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, k, generator=generator).to(dtype)
    bias = torch.randn(N, generator=generator)
    alone = torch.cat([linear(row[None], w, bias) for row in x])
    for name in _core.available_isas():
        _core.set_isa(name)
        for rows in (*FEW, ROWS):
            assert torch.equal(linear(x[:rows], w, bias), alone[:rows]), (name, rows)


def test_another_order_differs() -> None:
    """The comparison above can fail: torch's order gives other bits."""
    k = 4100
    values = torch.randn(N, k, generator=torch.Generator().manual_seed(k))
    x = torch.randn(ROWS, k, generator=torch.Generator().manual_seed(0))
    ours = linear(x, weight(k, torch.float32), torch.zeros(N))
    assert not torch.equal(ours, x @ values.T)
