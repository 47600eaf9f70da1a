"""Attention over a paged KV cache: the NumPy oracle, and invariance, both bitwise.

B sequences, T ragged rows, H query heads, G key-value heads, h d_head, K key positions.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import bitlens
import numpy as np
import pytest
import torch
from bitlens import _core
from hypothesis import given
from hypothesis import strategies as st
from support import fp32_oracle as oracle

PAGE = 64
DTYPES = [torch.float32, torch.bfloat16]


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    d_head: int
    window: int = 0
    dtype: torch.dtype = torch.float32
    cap: float = 0.0

    @property
    def scale(self) -> float:
        return float(np.float32(self.d_head**-0.5))

    def random(self, rows: int, heads: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(rows, heads, self.d_head, generator=generator).to(self.dtype)


@dataclass
class Cache:
    """Pages in scrambled order whose unwritten slots hold NaN and infinities."""

    shape: Shape
    batch: int
    capacity: int
    page_table: torch.Tensor = field(init=False)
    k_pages: torch.Tensor = field(init=False)
    v_pages: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        s, pages = self.shape, -(-self.capacity // PAGE)
        order = torch.randperm(self.batch * pages, generator=torch.Generator().manual_seed(0))
        self.page_table = order.to(torch.int32).view(self.batch, pages).contiguous()
        self.k_pages = torch.full((len(order), s.kv_heads, s.d_head, PAGE), torch.nan).to(s.dtype)
        self.v_pages = torch.full((len(order), s.kv_heads, PAGE, s.d_head), torch.inf).to(s.dtype)

    def _rows(self, lengths: list[int], past: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.tensor([0, *np.cumsum(lengths).tolist()])
        return starts, torch.tensor(past)

    def _shape(self) -> tuple[int, int, int]:
        return self.shape.heads, self.shape.kv_heads, self.shape.d_head

    def _code(self) -> int:
        return DTYPES.index(self.shape.dtype)

    def _table(self) -> tuple[torch.Tensor, int]:
        return self.page_table, self.page_table.shape[1]

    def write(self, k: torch.Tensor, v: torch.Tensor, lengths: list[int], past: list[int]) -> None:
        starts, before = self._rows(lengths, past)
        _core.kv_write(
            k,
            v,
            self._code(),
            k.stride(0),
            v.stride(0),
            starts,
            before,
            self.batch,
            self.shape.kv_heads,
            self.shape.d_head,
            *self._table(),
            self.k_pages,
            self.v_pages,
        )

    def attend(
        self, q: torch.Tensor, lengths: list[int], past: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z [T, H, h] and lse [T, H]."""
        starts, before = self._rows(lengths, past)
        z = torch.empty(q.shape, dtype=q.dtype)
        lse = torch.empty(q.shape[:2])
        _core.attention(
            q,
            self._code(),
            q.stride(0),
            *self._shape(),
            self.shape.scale,
            self.shape.cap,
            self.shape.window,
            starts,
            before,
            self.batch,
            *self._table(),
            self.k_pages,
            self.v_pages,
            z,
            z.stride(0),
            lse,
        )
        return z, lse

    def scores(
        self, q: torch.Tensor, lengths: list[int], past: list[int], rows: torch.Tensor
    ) -> torch.Tensor:
        """[len(rows), H, capacity], -inf where masked."""
        starts, before = self._rows(lengths, past)
        out = torch.full((len(rows), self.shape.heads, self.capacity), torch.nan)
        _core.attention_scores(
            q,
            self._code(),
            q.stride(0),
            *self._shape(),
            self.shape.scale,
            self.shape.cap,
            self.shape.window,
            starts,
            before,
            self.batch,
            *self._table(),
            self.k_pages,
            rows,
            len(rows),
            self.capacity,
            out,
        )
        return out

    def values(self, pattern: torch.Tensor, lengths: list[int], past: list[int]) -> torch.Tensor:
        starts, before = self._rows(lengths, past)
        z = torch.empty(len(pattern), self.shape.heads, self.shape.d_head, dtype=self.shape.dtype)
        _core.attention_values(
            pattern,
            self.capacity,
            *self._shape(),
            self._code(),
            self.shape.window,
            starts,
            before,
            self.batch,
            *self._table(),
            self.v_pages,
            z,
            z.stride(0),
        )
        return z


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(scores)
    _core.softmax(scores, scores.shape[:-1].numel(), scores.shape[-1], out)
    return out


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    word = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and torch.equal(a.view(word), b.view(word))


def _positions(lengths: list[int], past: list[int]) -> list[tuple[int, int]]:
    """(sequence, position) of every row."""
    return [
        (b, p + i) for b, (n, p) in enumerate(zip(lengths, past, strict=True)) for i in range(n)
    ]


def _filled(shape: Shape, lengths: list[int], past: list[int]) -> tuple[Cache, torch.Tensor]:
    """A cache with its history written in one call and the new rows in a second; and queries."""
    total = [n + p for n, p in zip(lengths, past, strict=True)]
    cache = Cache(shape, len(lengths), max(total))
    for seed, part, before in ((1, past, [0] * len(past)), (2, lengths, past)):
        # k and v are slices of one buffer, as a fused projection leaves them
        kv = shape.random(sum(part), 2 * shape.kv_heads, seed)
        cache.write(kv[:, : shape.kv_heads], kv[:, shape.kv_heads :], part, before)
    q = shape.random(sum(lengths), 2 * shape.heads, 3)[:, : shape.heads]
    return cache, q


def _visible(shape: Shape, position: int) -> slice:
    first = max(0, position - shape.window + 1) if shape.window else 0
    return slice(first, position + 1)


def _stored(cache: Cache, sequence: int, head: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """k and v [count, h] of one head, read back from the pages, as fp32."""
    pages = cache.page_table[sequence].long()
    k = cache.k_pages[pages, head].transpose(1, 2).flatten(0, 1)[:count]
    v = cache.v_pages[pages, head].flatten(0, 1)[:count]
    return k.float().numpy(), v.float().numpy()


SHAPES = [
    Shape(heads=2, kv_heads=2, d_head=1),
    Shape(heads=6, kv_heads=2, d_head=17),
    Shape(heads=3, kv_heads=1, d_head=64, window=100),
    Shape(heads=2, kv_heads=2, d_head=80, window=1),
    Shape(heads=4, kv_heads=1, d_head=80, window=7),
    Shape(heads=2, kv_heads=1, d_head=300),
    Shape(heads=3, kv_heads=1, d_head=64, window=100, cap=0.7),
    Shape(heads=2, kv_heads=1, d_head=300, cap=30.0),
]


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_is_the_spec(isa: str, dtype: torch.dtype, shape: Shape) -> None:
    _core.set_isa(isa)
    shape = dataclasses.replace(shape, dtype=dtype)
    lengths, past = [2, 1, 3], [257, 63, 0]
    cache, q = _filled(shape, lengths, past)
    z, lse = cache.attend(q, lengths, past)
    scores = cache.scores(q, lengths, past, torch.arange(len(q)))
    pattern = _softmax(scores)
    for row, (b, position) in enumerate(_positions(lengths, past)):
        for head in range(shape.heads):
            kv_head = head // (shape.heads // shape.kv_heads)
            k, v = _stored(cache, b, kv_head, position + 1)
            first = _visible(shape, position).start
            want = oracle.attention(
                q[row, head].float().numpy(), k, v, shape.scale, first, shape.cap
            )
            want_scores, want_pattern, want_z, top, total = map(torch.as_tensor, want)
            log_total = total.clone()
            _core.log(log_total, 1, log_total)
            assert _same(scores[row, head, : position + 1], want_scores)
            assert bool(scores[row, head, position + 1 :].isneginf().all())
            assert _same(pattern[row, head, : position + 1], want_pattern)
            assert _same(z[row, head], want_z.to(dtype))
            assert _same(lse[row, head], top + log_total)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Shape, list[int], list[int]]:
    kv_heads = draw(st.integers(1, 3))
    shape = Shape(
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        d_head=draw(st.sampled_from([1, 3, 16, 17, 33, 64, 80, 128])),
        window=draw(st.sampled_from([0, 0, 1, 5, 64, 130])),
        dtype=draw(st.sampled_from(DTYPES)),
        cap=draw(st.sampled_from([0.0, 0.0, 0.7])),
    )
    sequence = st.tuples(st.integers(1, 150), st.integers(0, 400))
    sequences = draw(st.lists(sequence, min_size=1, max_size=4))
    return shape, [n for n, _ in sequences], [p for _, p in sequences]


@given(batches())
def test_scores_softmax_values_are_the_fused_attention(
    batch: tuple[Shape, list[int], list[int]],
) -> None:
    shape, lengths, past = batch
    cache, q = _filled(shape, lengths, past)
    pattern = _softmax(cache.scores(q, lengths, past, torch.arange(len(q))))
    for row, (_, position) in enumerate(_positions(lengths, past)):
        masked = torch.ones(cache.capacity, dtype=torch.bool)
        masked[_visible(shape, position)] = False
        assert (pattern[row, :, masked] == 0).all()
        pattern[row, :, masked] = torch.nan  # values must not look at it
    z, _ = cache.attend(q, lengths, past)
    assert _same(cache.values(pattern, lengths, past), z)


@given(batches(), st.data())
def test_scores_of_chosen_rows_are_those_rows(
    batch: tuple[Shape, list[int], list[int]], data: st.DataObject
) -> None:
    shape, lengths, past = batch
    cache, q = _filled(shape, lengths, past)
    chosen = data.draw(st.lists(st.integers(0, len(q) - 1), min_size=1, max_size=20))
    rows = torch.tensor(chosen)
    every = cache.scores(q, lengths, past, torch.arange(len(q)))
    assert _same(cache.scores(q, lengths, past, rows), every[rows])


@given(batches(), st.data())
def test_neither_batch_mates_nor_chunks_nor_threads_nor_isa_move_a_bit(
    batch: tuple[Shape, list[int], list[int]], data: st.DataObject
) -> None:
    shape, lengths, past = batch
    bitlens.set_num_threads(1)
    cache, q = _filled(shape, lengths, past)
    z, lse = cache.attend(q, lengths, past)

    bitlens.set_num_threads(data.draw(st.sampled_from([2, 4])))
    _core.set_isa(data.draw(st.sampled_from(_core.available_isas())))
    again, lse_again = cache.attend(q, lengths, past)
    assert _same(again, z)
    assert _same(lse_again, lse)

    # One sequence alone, its rows in two calls, the later keys not yet written.
    b = data.draw(st.integers(0, len(lengths) - 1))
    cut = data.draw(st.integers(0, lengths[b]))
    start = sum(lengths[:b])
    alone = Cache(shape, 1, past[b] + lengths[b])
    pages = cache.page_table[b].long()
    k = cache.k_pages[pages].permute(0, 3, 1, 2).flatten(0, 1).contiguous()
    v = cache.v_pages[pages].permute(0, 2, 1, 3).flatten(0, 1).contiguous()
    for begin, end in ((-past[b], 0), (0, cut), (cut, lengths[b])):
        where = slice(past[b] + begin, past[b] + end)
        alone.write(k[where], v[where], [end - begin], [where.start])
        if begin >= 0 and end > begin:
            rows = slice(start + begin, start + end)
            part, _ = alone.attend(q[rows], [end - begin], [where.start])
            assert _same(part, z[rows])


def test_a_nan_key_or_value_reaches_only_rows_that_see_it() -> None:
    shape = Shape(heads=3, kv_heads=1, d_head=64, window=40)
    lengths, past = [200], [0]
    cache, q = _filled(shape, lengths, past)
    clean, _ = cache.attend(q, lengths, past)
    bad = 70
    page = cache.page_table[0, bad // PAGE]
    for pages in (cache.k_pages[page, 0, :, bad % PAGE], cache.v_pages[page, 0, bad % PAGE]):
        saved = pages.clone()
        pages.fill_(torch.nan)
        z, _ = cache.attend(q, lengths, past)
        seen = torch.arange(bad, bad + shape.window)
        hidden = torch.cat([torch.arange(bad), torch.arange(bad + shape.window, 200)])
        assert z[seen].isnan().all()
        assert _same(z[hidden], clean[hidden])
        pages.copy_(saved)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_a_cap_bounds_the_scores_a_row_sees_and_no_others(isa: str) -> None:
    _core.set_isa(isa)
    capped = Shape(heads=3, kv_heads=1, d_head=64, window=40, cap=0.5)
    plain = dataclasses.replace(capped, cap=0.0)
    rows = torch.arange(200)
    scores = []
    for shape in (capped, plain):
        cache, q = _filled(shape, [200], [0])
        scores.append(cache.scores(q, [200], [0], rows))
    with_cap, without = scores
    assert with_cap.isneginf().equal(without.isneginf())
    seen = with_cap.isfinite()
    assert bool((without[seen].abs() > 0.5).any())
    assert bool((with_cap[seen].abs() <= 0.5).all())


def test_a_row_whose_scores_are_all_minus_infinity_is_zero() -> None:
    shape = Shape(heads=1, kv_heads=1, d_head=16)
    cache, q = _filled(shape, [5], [0])
    q = torch.full_like(q, -torch.inf)
    cache.write(torch.ones(5, 1, 16), torch.ones(5, 1, 16), [5], [0])
    z, lse = cache.attend(q, [5], [0])
    assert (z == 0).all()
    assert lse.isneginf().all()


def test_another_leaf_would_move_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the comparison sees the order in which keys are added."""
    shape = Shape(heads=1, kv_heads=1, d_head=8)
    cache, q = _filled(shape, [1], [299])
    z, _ = cache.attend(q, [1], [299])
    k, v = _stored(cache, 0, 0, 300)
    arguments = (q[0, 0].numpy(), k, v, shape.scale, 0)
    assert _same(z[0, 0], torch.as_tensor(oracle.attention(*arguments)[2]))
    monkeypatch.setattr(oracle, "LEAF", 128)
    assert not _same(z[0, 0], torch.as_tensor(oracle.attention(*arguments)[2]))
