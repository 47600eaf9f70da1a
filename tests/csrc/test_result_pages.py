"""Memory of large results: used again, never while a tensor still holds it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from bitlens import _core
from bitlens.model.ops.kernels import empty
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    gc.collect()
    _core.drop_kept_pages()
    assert _core.kept_page_bytes() == 0
    yield
    _core.drop_kept_pages()


def test_freed_memory_serves_the_next_result_of_its_size() -> None:
    x = empty((3, MIB))
    address = x.data_ptr()
    assert address % (2 * MIB) == 0
    del x
    assert _core.kept_page_bytes() == 12 * MIB
    other = empty((5, MIB))
    assert other.data_ptr() != address
    again = empty((MIB, 6), torch.bfloat16)  # 12 MiB as well
    assert again.data_ptr() == address
    assert _core.kept_page_bytes() == 0


def test_a_view_keeps_the_memory() -> None:
    view = empty((4, MIB)).fill_(7.0)[1, :10]
    gc.collect()
    other = empty((4, MIB)).zero_()
    assert other.data_ptr() != view.data_ptr() - 4 * MIB
    assert bool((view == 7.0).all())


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 7)), max_size=40))
def test_tensors_alive_never_share_memory(steps: list[tuple[bool, int]]) -> None:
    alive: list[tuple[torch.Tensor, float]] = []
    for i, (grow, size) in enumerate(steps):
        if grow or not alive:
            alive.append((empty((size, MIB // 4)).fill_(float(i)), float(i)))
        else:
            alive.pop(size % len(alive))
        for x, value in alive:
            assert bool((x == value).all())


def test_what_is_kept_has_a_limit() -> None:
    tensors = [empty((512, MIB // 4)) for _ in range(10)]  # 5 GiB, never touched
    tensors.clear()
    assert 3 << 30 < _core.kept_page_bytes() <= 4 << 30
    del tensors


def test_more_than_there_is_raises() -> None:
    with pytest.raises(MemoryError):
        _core.ResultPages(1 << 60)
