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
    isa, threads = _core.isa_setting(), _core.get_num_threads()
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
            g, g.numel(), 0.9, 0.1, 0.999, 0.001, 1e-3, 1.5, 1e-8, 0.7, 1.0,
            p, first, second,
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


def adversarial(n: int, d: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, encoder and bias of small integers: outputs that tie by the hundred, and zeros."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (n, d), generator=g).float()
    w = torch.randint(-1, 2, (2100, d), generator=g).float()
    w[1500:] = w[:600]  # across blocks of columns
    return x, w, torch.randint(-1, 2, (2100,), generator=g).float()


@pytest.mark.parametrize("ties", [True, False])
def test_the_fused_encoding_has_the_bits_of_the_product_and_the_selection(ties: bool) -> None:
    from bitlens.model.ops.packed import pack
    from bitlens.model.weights.checkpoint import Format, StoredMatrix

    x, w, bias = adversarial(300, 19, seed=1)
    if not ties:
        x, w, bias = matrix(300, 576), matrix(2100, 576, seed=1) / 24, matrix(2100, seed=2)
    weight = pack(StoredMatrix(Format.F32, len(w), w.shape[1], w))
    thresholds = torch.full((2100,), 3.0 if ties else 1.5)
    whole = kernels.dense(x, w, bias)
    k = 32
    for where in settings():
        top, fused = kernels.top_k(whole, k), kernels.encode_top_k(x, weight, bias, k)
        assert torch.equal(top.indices, fused.indices), where
        assert same_bits(top.values, fused.values), where
        found = kernels.encode_above(x, weight, bias, thresholds)
        mask = whole > thresholds
        assert torch.equal(found.starts.diff(), mask.sum(1))
        assert torch.equal(found.indices.long(), mask.nonzero()[:, 1])
        assert same_bits(found.values, whole[mask]), where
        # One row alone, or rows in other company, have the same features.
        alone = kernels.encode_top_k(x[7:8], weight, bias, k)
        assert same_bits(alone.values[0], fused.values[7])
    if ties:
        # So that the order of ties decided something: the k-th value has equals left out.
        last = top.values.amin(1, keepdim=True)
        assert ((whole == last).sum(1) > (top.values == last).sum(1)).any()
        # The control: thresholds that are met exactly are not above.
        assert bool((whole == thresholds).any())
        assert len(found.values) < int((whole >= thresholds).sum())


def test_the_fused_encoding_agrees_with_fp64() -> None:
    from bitlens.model.ops.packed import pack
    from bitlens.model.weights.checkpoint import Format, StoredMatrix

    x, w, bias = matrix(40, 576), matrix(300, 576, seed=1) / 24, matrix(300, seed=2)
    weight = pack(StoredMatrix(Format.F32, 300, 576, w))
    top = kernels.encode_top_k(x, weight, bias, 9)
    exact = x.double() @ w.double().T + bias.double()
    bound = 579 * 2.0**-24 * (x.abs().double() @ w.abs().double().T + bias.abs().double())
    at = top.indices.long()
    away = (top.values.double() - exact.gather(1, at)).abs()
    assert (away <= bound.gather(1, at)).all()
    assert bool((away > 0).any())


def test_a_k_or_threshold_that_selects_nothing_or_all() -> None:
    from bitlens.model.ops.packed import pack
    from bitlens.model.weights.checkpoint import Format, StoredMatrix

    weight = pack(StoredMatrix(Format.F32, 1, 2, torch.ones(1, 2)))
    one = torch.zeros(1)
    x = torch.tensor([[1.0, 2.0], [math.nan, 1.0]])
    top = kernels.encode_top_k(x, weight, one, 1)
    assert top.values.tolist() == [[3.0], [0.0]]
    assert top.indices.tolist() == [[0], [-1]]
    found = kernels.encode_above(x, weight, one, torch.tensor([3.0]))
    assert found.starts.tolist() == [0, 0, 0]
    empty = kernels.encode_above(x[:0], weight, one, one)
    assert empty.starts.tolist() == [0]
    with pytest.raises(ValueError, match="k = 2 of 1 outputs"):
        kernels.encode_top_k(x, weight, one, 2)


def test_clipping_in_the_step_has_the_bits_of_clipping_before_it() -> None:
    g, clip = matrix(3, 577), 0.37
    states = []
    for gradient, factor in ((g, clip), (g * clip, 1.0)):
        p, m, v = matrix(3, 577, seed=1), matrix(3, 577, seed=2), matrix(3, 577, seed=3).square()
        _core.adam(
            gradient, g.numel(), 0.9, 0.1, 0.999, 0.001, 1e-3, 1.5, 1e-8, factor,
            1.0, p, m, v,
        )  # fmt: skip
        states.append((p, m, v))
    assert all(same_bits(a, b) for a, b in zip(*states, strict=True))


def test_the_means_that_training_begins_with_are_the_same_everywhere() -> None:
    from bitlens.interp.training.trainer import row_mean

    y = matrix(5000, 48) * 100 + 3
    means = []
    for _, threads in settings():
        torch.set_num_threads(threads)
        means.append(row_mean(y))
    assert all(same_bits(means[0], mean) for mean in means[1:])
    bound = 5002 * 2.0**-24 * y.abs().double().mean(0)
    assert ((means[0].double() - y.double().mean(0)).abs() <= bound).all()
