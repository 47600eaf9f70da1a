"""RoPE, the paged cache and attention: the CPU's bits, for every way to cut the same sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from bitlens.model.ops import kernels as cpu
from bitlens.model.rope.tables import rope_table
from support.cuda_host import (
    ORDERS,
    assert_same_bits,
    host_kernels,
    launching,
    threads_in_order,
)

F32, BF16 = torch.float32, torch.bfloat16
PAGE = 64


@pytest.fixture(params=ORDERS, autouse=True)
def order(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads_in_order(request.param):
        yield


@dataclass
class Cached:
    """Sequences with new rows after what is cached, in pages that stand in no order; what was never
    written is NaN."""

    lengths: list[int]
    past: list[int]
    heads: int
    kv_heads: int
    d_head: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(sum(self.past) + self.d_head)
        totals = [a + b for a, b in zip(self.lengths, self.past, strict=True)]
        width = -(-max(totals) // PAGE)
        pages = torch.randperm(len(totals) * width, generator=self.generator)
        self.table = pages.to(torch.int32).view(len(totals), width)
        self.n_keys = max(totals)
        self.starts = torch.tensor([0, *torch.tensor(self.lengths).cumsum(0).tolist()])
        self.past_B = torch.tensor(self.past)
        shape = (len(pages), self.kv_heads, self.d_head, PAGE)
        self.k_pages = torch.full(shape, float("nan"), dtype=self.dtype)
        self.v_pages = (
            torch.full(shape, float("nan"), dtype=self.dtype).transpose(2, 3).contiguous()
        )
        everything = torch.tensor([0, *torch.tensor(totals).cumsum(0).tolist()])
        k, v = (self.draw(sum(totals), self.kv_heads) for _ in range(2))
        cpu.kv_write(
            k, v, self.k_pages, self.v_pages, self.table, everything, torch.zeros_like(self.past_B)
        )
        self.q = self.draw(sum(self.lengths), self.heads)

    def draw(self, rows: int, heads: int) -> torch.Tensor:
        x = torch.randn(rows, heads, self.d_head, generator=self.generator)
        return cpu.cast(x, self.dtype)

    @property
    def where(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.table, self.starts, self.past_B


CACHES = [
    Cached([1, 1, 1], [0, 69, 300], 6, 2, 16, F32),
    Cached([5, 70], [0, 3], 3, 3, 10, BF16),
    Cached([33], [250], 4, 1, 72, BF16),
    Cached([130], [0], 2, 1, 8, F32),
]
WINDOWS = [0, 4, 300]


@pytest.mark.parametrize("cached", CACHES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cap", [0.0, 1.5])
def test_attention(cached: Cached, window: int, cap: float) -> None:
    pages = (cached.k_pages, cached.v_pages, *cached.where)
    wanted = cpu.attention(cached.q, *pages, 0.25, window, cap)
    with launching("attention_scores", "attention_softmax", "attention_values", "attention_sum"):
        found = host_kernels().attention(cached.q, *pages, 0.25, window, cap)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_same_bits(ours, theirs)


def test_rows_a_chunk_move_no_bit() -> None:
    cached = CACHES[1]
    pages = (cached.k_pages, cached.v_pages, *cached.where)
    wanted = cpu.attention(cached.q, *pages, 0.25, 0)[0]
    floats = host_kernels().library.value(
        "attention_workspace", 2, 1, cached.heads, cached.d_head, cached.n_keys
    )
    for rows in (9, 64):
        gpu = host_kernels(workspace=rows * floats * 4)
        before = gpu.library.launches()["attention_sum"]
        assert_same_bits(gpu.attention(cached.q, *pages, 0.25, 0)[0], wanted)
        assert gpu.library.launches()["attention_sum"] - before == -(-70 // rows)


@pytest.mark.parametrize("cached", CACHES)
@pytest.mark.parametrize("window", WINDOWS)
def test_attention_in_its_parts(cached: Cached, window: int) -> None:
    gpu, n_rows = host_kernels(), len(cached.q)
    some = torch.arange(0, n_rows, 2)
    where = (cached.k_pages, *cached.where)
    for rows in (torch.arange(n_rows), some):
        wanted = cpu.attention_scores(cached.q, *where, 0.3, window, rows, cached.n_keys, 2.0)
        with launching("attention_scores"):
            found = gpu.attention_scores(cached.q, *where, 0.3, window, rows, cached.n_keys, 2.0)
        assert_same_bits(found, wanted)
    scores = cpu.attention_scores(
        cached.q, *where, 0.3, window, torch.arange(n_rows), cached.n_keys
    )
    pattern = cpu.softmax(scores)
    with launching("attention_values", "attention_sum"):
        z = gpu.attention_values(pattern, cached.v_pages, *cached.where, window)
    assert_same_bits(z, cpu.attention_values(pattern, cached.v_pages, *cached.where, window))


def test_attention_rounded_step_by_step() -> None:
    for cached in (CACHES[1], CACHES[2]):
        where, rows = (cached.k_pages, *cached.where), torch.arange(len(cached.q))
        dots = cpu.attention_scores(cached.q, *where, 1.0, 0, rows, cached.n_keys)
        scores = cpu.cast(cpu.scale_scores(dots, 0.3, BF16), F32)
        pattern = cpu.cast(cpu.cast(cpu.softmax(scores), BF16), F32)
        wanted = cpu.attention_values(pattern, cached.v_pages, *cached.where, 0)
        pages = (cached.k_pages, cached.v_pages, *cached.where)
        found, _ = host_kernels().attention(cached.q, *pages, 0.3, 0, stepwise=True)
        assert_same_bits(found, wanted)


def test_keys_that_are_not_visible_are_not_read() -> None:
    cached = Cached([1], [200], 2, 1, 16, F32)
    pages = (cached.k_pages, cached.v_pages, *cached.where)
    wanted = cpu.attention(cached.q, *pages, 0.25, 4)[0]
    masked = torch.ones(1, 197, 1, 16)
    nan = masked * float("nan")
    cpu.kv_write(
        nan[0], nan[0], cached.k_pages, cached.v_pages, cached.table, torch.tensor([0, 197]),
        torch.tensor([0]),
    )  # fmt: skip
    found = host_kernels().attention(cached.q, *pages, 0.25, 4)[0]
    assert bool(found.isfinite().all())
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("stepwise", [False, True])
def test_rope_and_the_cache(dtype: torch.dtype, stepwise: bool) -> None:
    cached = Cached([3, 1, 66], [62, 130, 0], 5, 2, 12, dtype)
    table, gpu = rope_table(1e4, 12, 256), host_kernels()
    spans = zip(cached.past, cached.lengths, strict=True)
    positions = torch.cat([torch.arange(a, a + n) for a, n in spans])
    rows = len(positions)
    q, k, v = (cached.draw(rows, heads) for heads in (5, 2, 2))
    wanted_q, wanted_k = (
        cpu.rope(x, positions, table.cos, table.sin, stepwise=stepwise) for x in (q, k)
    )
    with launching("rope"):
        found = gpu.rope(q, positions, table.cos, table.sin, stepwise=stepwise)
    assert_same_bits(found, wanted_q)
    pages, ours, fused = ((cached.k_pages.clone(), cached.v_pages.clone()) for _ in range(3))
    cpu.kv_write(wanted_k, v, *pages, *cached.where)
    with launching("kv_write"):
        gpu.kv_write(wanted_k, v, *ours, *cached.where)
    qkv = torch.cat([x.flatten(1) for x in (q, k, v)], 1)
    with launching("rope_kv_write"):
        gpu.rope_kv_write(qkv, table.cos, table.sin, *fused, *cached.where, stepwise=stepwise)
    assert_same_bits(qkv[:, : 5 * 12].reshape(rows, 5, 12), wanted_q)
    for found_pages in (ours, fused):
        for x, y in zip(found_pages, pages, strict=True):
            assert_same_bits(x, y)
