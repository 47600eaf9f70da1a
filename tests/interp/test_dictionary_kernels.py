"""The kernels of dictionaries: their order, their ties, and one result on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterator

import bitlens
import numpy as np
import pytest
import torch
from bitlens import _core
from bitlens.interp.dictionaries import kernels
from bitlens.model.hooks.registry import same_bits
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    isa, threads = _core.isa(), _core.get_num_threads()
    yield
    _core.set_isa(isa)
    bitlens.set_num_threads(threads)


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fma(a: float, b: float, c: float) -> float:
    """a * b + c rounded once to fp32: the product of two floats and its sum fit fp64 but rarely."""
    exact = np.longdouble(a) * np.longdouble(b) + np.longdouble(c)
    return float(np.float32(exact))


def settings() -> Iterator[tuple[str, int]]:
    for isa in _core.available_isas():
        for threads in (1, 2, 3):
            _core.set_isa(isa)
            bitlens.set_num_threads(threads)
            yield isa, threads


@given(
    values=st.lists(
        st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45]),
            st.floats(width=32),
        ),
        min_size=1,
        max_size=300,
    ),
    k=st.integers(1, 40),
)
def test_top_k_takes_the_first_of_equal_values_and_never_nan(values: list[float], k: int) -> None:
    k = min(k, len(values))
    x = torch.tensor([values], dtype=torch.float32)
    kept = [(-v, i) for i, v in enumerate(x[0].tolist()) if not math.isnan(v)]
    expected = sorted(i for _, i in sorted(kept)[:k])
    for _ in settings():
        top = kernels.top_k(x, k)
        assert top.indices[0, : len(expected)].tolist() == expected
        assert (top.indices[0, len(expected) :] == -1).all()
        assert same_bits(top.values[0, : len(expected)], x[0, expected])


def test_nan_hides_no_larger_value() -> None:
    x = torch.full((1, 200), math.nan)
    x[0, 3], x[0, 90], x[0, 91], x[0, 199] = 1.0, 5.0, 2.0, 3.0
    for _ in settings():
        assert kernels.top_k(x, 2).indices.tolist() == [[90, 199]]


def test_sums_keep_their_order_on_every_instruction_set() -> None:
    n_entries, d = 600, 83
    table, coefs = matrix(50, d, seed=1), matrix(n_entries, seed=2)
    indices = torch.randint(-1, 50, (n_entries,), dtype=torch.int32)
    starts = torch.tensor([0, 0, 7, 550, n_entries])
    bias = matrix(d, seed=3)
    expected = torch.empty(4, d)
    for r in range(4):
        for c in range(d):
            total = 0.0
            for leaf in range(int(starts[r]), int(starts[r + 1]), 256):
                acc = 0.0
                for i in range(leaf, min(leaf + 256, int(starts[r + 1]))):
                    if indices[i] >= 0:
                        acc = fma(float(coefs[i]), float(table[indices[i], c]), acc)
                total = acc if leaf == int(starts[r]) else float(np.float32(total + acc))
            expected[r, c] = float(np.float32(total + float(bias[c])))
    for where in settings():
        found = kernels.weighted_sums(coefs, indices, starts, table, bias)
        assert same_bits(found, expected), where
    # The control: the same terms in another order give other bits.
    turned = kernels.weighted_sums(
        coefs[7:550].flip(0), indices[7:550].flip(0), torch.tensor([0, 543]), table, bias
    )
    assert not same_bits(turned[0], expected[2])


def test_dots_squares_and_training_steps_have_the_same_bits_everywhere() -> None:
    x, table = matrix(9, 577), matrix(40, 577, seed=1)
    indices = torch.randint(-1, 40, (90,), dtype=torch.int32)
    starts = kernels.row_starts(9, 10)
    rows: list[list[torch.Tensor]] = []
    for _ in settings():
        w, g = table.clone(), matrix(40, 577, seed=2)
        kernels.unit_rows_(w)
        kernels.project_rows_(g, w)
        p, first, second = table.clone(), matrix(40, 577, seed=3), matrix(40, 577, seed=4).square()
        _core.adam(
            g, g.numel(), 0.9, 0.1, 0.999, 0.001, 1e-3, 1.5, 1e-8, p,
            first, second,
        )  # fmt: skip
        dots = kernels.gathered_dots(x, indices, starts, table)
        rows.append([dots, kernels.sums_of_squares(x), w, g, p, first, second])
    for other in rows[1:]:
        assert all(same_bits(a, b) for a, b in zip(rows[0], other, strict=True))
    dots, squares, w, g, *_ = rows[0]
    exact = (x.double()[torch.arange(90) // 10] * table.double()[indices.long()]).sum(1)
    bound = (
        577
        * 2.0**-24
        * (x.abs().double()[torch.arange(90) // 10] * table.abs()[indices.long()]).sum(1)
    )
    assert ((dots.double() - exact).abs() <= bound)[indices >= 0].all()
    assert (dots[indices < 0] == 0).all()
    assert torch.allclose(squares.double(), x.double().square().sum(1), rtol=577 * 2.0**-24)
    assert torch.allclose(w.double().norm(dim=1), torch.ones(40, dtype=torch.float64), rtol=1e-6)
    assert ((g.double() * w.double()).sum(1).abs() < 1e-5).all()


def test_entries_sort_by_column_as_they_stand() -> None:
    indices = torch.tensor([3, -1, 0, 3, 2, 0, -1, 3], dtype=torch.int32)
    columns = kernels.by_column(indices, 5)
    assert columns.starts.tolist() == [0, 2, 2, 3, 6, 6]
    assert columns.order.tolist() == [2, 5, 4, 0, 3, 7]


@pytest.mark.parametrize("index", [-2, 5, 2**31 - 1])
def test_an_index_outside_the_table_is_refused(index: int) -> None:
    indices = torch.tensor([0, index], dtype=torch.int32)
    starts, table = torch.tensor([0, 2]), torch.zeros(5, 4)
    for call in (
        lambda: kernels.weighted_sums(torch.ones(2), indices, starts, table),
        lambda: kernels.gathered_dots(torch.ones(1, 4), indices, starts, table),
        lambda: kernels.by_column(indices, 5),
    ):
        with pytest.raises((IndexError, ValueError), match=str(index)):
            call()
    with pytest.raises(ValueError, match="entry 3 of 2"):
        kernels.weighted_sums(torch.ones(2), indices, torch.tensor([0, 3]), table)
