"""Memory of packed weights: aligned, never shared, gone with the weights."""

from __future__ import annotations

import gc
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bitlens.model.ops.weight_pages import WeightPages
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


@given(sizes=st.lists(st.sampled_from([0, 1, 63, 64, 65, 5000, 3 * MIB, 40 * MIB]), max_size=8))
def test_pieces_are_aligned_and_never_overlap(sizes: list[int]) -> None:
    pages = WeightPages()
    pieces = [pages.take(size) for size in sizes]
    taken = []
    for piece, size in zip(pieces, sizes, strict=True):
        assert piece.dtype is torch.uint8
        assert piece.shape == (size,)
        if size:
            assert piece.data_ptr() % 64 == 0
            taken.append((piece.data_ptr(), piece.data_ptr() + size))
    taken.sort()
    assert all(stop <= start for (_, stop), (start, _) in pairwise(taken))


def mapped(address: int) -> bool:
    ranges = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ", Path("/proc/self/maps").read_text(), re.M)
    return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc to look into")
def test_a_region_goes_with_its_last_piece() -> None:
    pages = WeightPages()
    first, second = pages.take(3 * MIB), pages.take(5 * MIB)
    inside = first.data_ptr()
    del pages, first
    gc.collect()
    assert mapped(inside)  # `second` holds it
    del second
    gc.collect()
    assert not mapped(inside)


def test_no_memory_is_an_error_that_says_so() -> None:
    with pytest.raises(MemoryError, match="bytes of weights"):
        WeightPages().take(1 << 60)
