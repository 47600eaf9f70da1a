"""Encoding with a dictionary in one launch: what is selected is the CPU's, whichever thread blocks
share out the features, and however often candidates are forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from bitlens.interp.dictionaries import kernels as dictionaries
from bitlens.model.ops.cuda import CudaError
from bitlens.model.ops.cuda import dictionaries as on_device
from bitlens.model.ops.cuda.kernels import CudaKernels
from bitlens.model.ops.packed import PackedWeight
from bitlens.model.weights.checkpoint import Format
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_dictionaries,
    host_library,
    launching,
    threads_in_order,
)

DTYPES = {Format.F32: torch.float32, Format.BF16: torch.bfloat16, Format.F16: torch.float16}


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


@contextmanager
def sharing(ranges: int) -> Iterator[None]:
    """So many thread blocks share out the features, whether that is worth it or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device.CudaDictionaryKernels, "_ranges", lambda *shape: ranges)
        yield


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(features: int, d: int, format: Format = Format.F32) -> PackedWeight:
    rows = matrix(features, d).to(torch.bfloat16).to(DTYPES[format])
    return dictionaries.packed(rows, format)


def assert_same_top_k(
    x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor, k: int, workspace: int = 1 << 20
) -> None:
    wanted = dictionaries.encode_top_k(x, weight, bias, k)
    with launching("encode_top_k"):
        values, indices = host_dictionaries(workspace).encode_top_k(x, weight, bias, k)
    assert indices.dtype is wanted.indices.dtype
    assert torch.equal(indices.cpu(), wanted.indices)
    assert_same_bits(values, wanted.values)


def assert_same_above(
    x: torch.Tensor,
    weight: PackedWeight,
    bias: torch.Tensor,
    thresholds: torch.Tensor,
    workspace: int = 1 << 20,
) -> int:
    """Returns how many entries there are."""
    wanted = dictionaries.encode_above(x, weight, bias, thresholds)
    with launching("encode_above"):
        found = host_dictionaries(workspace).encode_above(x, weight, bias, thresholds)
    for ours, theirs in zip(found[:2], (wanted.starts, wanted.indices), strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.equal(ours.cpu(), theirs)
    assert_same_bits(found[2], wanted.values)
    return len(wanted.values)


@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize(
    ("rows", "features", "d", "k", "ranges"),
    [
        *((1, 1, 1, 1, 1), (1, 63, 16, 63, 1), (5, 300, 70, 9, 2), (33, 65, 17, 3, 2)),
        (2, 130, 300, 128, 3),
    ],
)
def test_ragged_shapes(
    order: None, format: Format, rows: int, features: int, d: int, k: int, ranges: int
) -> None:
    weight, x, bias = (
        weights(features, d, format),
        matrix(rows, d, seed=1),
        matrix(features, seed=2),
    )
    with sharing(ranges):
        assert_same_top_k(x, weight, bias, k)
        assert_same_above(x, weight, bias, matrix(features, seed=3).abs())


@pytest.mark.parametrize("ranges", [1, 2, 5, 8])
def test_candidates_are_forgotten(order: None, ranges: int) -> None:
    """Scores that ascend along the features, so that every tile beats those before; of ties the
    first are kept. With eight ranges the last one is empty."""
    weight, bias, x = weights(430, 20), torch.arange(430.0), matrix(3, 20, seed=1)
    bias[100:110] = bias[300]
    with sharing(ranges):
        assert_same_top_k(x, weight, bias, 12)
        assert_same_top_k(x, weight, bias.flip(0).contiguous(), 12)
        assert_same_top_k(torch.zeros(3, 20), weight, bias.round(decimals=-2), 12)


def test_candidates_are_a_fraction_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the product bounds what reaches memory, beside results and counts."""
    bytes_of: list[int] = []
    empty = CudaKernels.empty

    def counted(self: CudaKernels, *arguments: Any) -> torch.Tensor:
        made = empty(self, *arguments)
        bytes_of.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(CudaKernels, "empty", counted)
    rows, features, k = 2, 5000, 8
    weight, x, bias = weights(features, 3), matrix(rows, 3, seed=1), torch.zeros(features)
    assert host_dictionaries()._ranges(rows, features, k + on_device.ROOM) == 17
    assert_same_top_k(x, weight, bias, k)
    assert 0 < sum(bytes_of) < 0.55 * 4 * rows * features
    bytes_of.clear()
    assert_same_above(x, weight, bias, torch.full((features,), 3.0))
    assert 0 < sum(bytes_of) < 0.55 * 4 * rows * features


def test_rows_that_come_apart(order: None) -> None:
    """A workspace for one row of candidates at a time, and for two."""
    weight, x, bias = weights(300, 70), matrix(5, 70, seed=1), matrix(300, seed=2)
    thresholds = matrix(300, seed=3).abs()
    bias[7] = math.nan
    for workspace in (1, 2 * on_device.ENTRY * (9 + on_device.ROOM)):
        assert_same_top_k(x, weight, bias, 9, workspace)
        assert 0 < assert_same_above(x, weight, bias, thresholds, workspace) < 5 * 299


@pytest.mark.parametrize("ranges", [1, 2])
def test_what_has_no_room_is_encoded_again(order: None, ranges: int) -> None:
    weight, x, bias = weights(200, 20), matrix(4, 20, seed=1), torch.zeros(200)
    thresholds = torch.full((200,), -math.inf)
    before = host_library().launches()["encode_above"]
    with sharing(ranges):
        assert assert_same_above(x, weight, bias, thresholds) == 4 * 200
        assert host_library().launches()["encode_above"] == before + 2
        assert assert_same_above(x, weight, bias, -thresholds) == 0


@pytest.mark.parametrize("k", [1, 4, 9])
def test_ties_zeros_and_what_is_no_number(order: None, k: int) -> None:
    """Scores are the bias alone, of which the first of equal ones comes first."""
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, 1.0])
    weight = dictionaries.packed(torch.zeros(150, 3), Format.F32)
    for bias in (special.repeat(17)[:150].contiguous(), torch.full((150,), math.nan)):
        bias[40:] = bias[:110].clone()
        assert_same_top_k(torch.zeros(2, 3), weight, bias, k)
        assert_same_above(torch.zeros(2, 3), weight, bias, torch.zeros(150))


def test_rows_of_nothing() -> None:
    weight, x = weights(70, 5), torch.empty(0, 5)
    gpu, bias = host_dictionaries(), torch.zeros(70)
    before = host_library().launches()
    values, indices = gpu.encode_top_k(x, weight, bias, 3)
    assert (values.shape, indices.shape) == ((0, 3), (0, 3))
    starts, indices, values = gpu.encode_above(x, weight, bias, bias)
    assert (starts.tolist(), len(indices), len(values)) == ([0], 0, 0)
    assert host_library().launches() == before


@settings(max_examples=25)
@given(st.data())
def test_any_scores_have_the_cpus_selection(data: st.DataObject) -> None:
    """Few different scores, in ranges of any number of tiles."""
    features, rows = data.draw(st.integers(1, 260)), data.draw(st.integers(1, 34))
    k, seed = data.draw(st.integers(1, features)), data.draw(st.integers(0, 999))
    ranges, order = data.draw(st.integers(1, 8)), data.draw(st.sampled_from(["up", "down", "3"]))
    rounded = matrix(features, 2, seed=seed).round()
    weight, x = dictionaries.packed(rounded, Format.F32), matrix(rows, 2, seed=seed + 1).round()
    with sharing(ranges), threads_in_order(order):
        assert_same_top_k(x, weight, torch.zeros(features), k)
        assert_same_above(x, weight, torch.zeros(features), rounded[:, 0].contiguous())


def test_a_workspace_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "ROOM", 63)
    with pytest.raises(CudaError, match="encode_top_k: the workspace does not hold one row"):
        host_dictionaries().encode_top_k(matrix(1, 5), weights(70, 5), torch.zeros(70), 3)
