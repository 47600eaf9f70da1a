"""The simulators do what they claim: which fault loses which token, and which cannot."""

from __future__ import annotations

import math

import pytest
import torch
from bitlens.audit.postmortem import (
    approx_top_k,
    approx_top_k_losing_tail,
    exact_top_k,
    excess_precision,
    n_bins,
    naive_candidates,
)
from hypothesis import given
from hypothesis import strategies as st


def _distinct(vocab: int, seed: int, rows: int = 1) -> torch.Tensor:
    """Rows of distinct values in random order."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(vocab, generator=generator) for _ in range(rows)]
    return torch.stack(orders).float() / vocab * 20


def test_excess_precision_rounds_only_what_it_is_told() -> None:
    shards = list(torch.randn(3, 40).tensor_split(4, dim=1))
    found = excess_precision(shards, {1, 3})
    for i, (before, after) in enumerate(zip(shards, found, strict=True)):
        rounded = before.bfloat16().float()
        assert not torch.equal(before, rounded)
        assert torch.equal(after, rounded if i in (1, 3) else before)
    with pytest.raises(ValueError, match="no shard 4"):
        excess_precision(shards, [4])


def test_excess_precision_changes_which_shard_holds_the_best_token() -> None:
    """8.03 rounds to 8, below the 8.02 that its shard keeps."""
    shards = [torch.tensor([[8.02, 1.0]]), torch.tensor([[8.03, 1.0]])]
    assert naive_candidates(shards, top_p=1.0, top_k=1).first().item() == 2
    faulty = excess_precision(shards, [1])
    assert naive_candidates(faulty, top_p=1.0, top_k=1).first().item() == 0
    # Where both round, they agree again, on a tie.
    assert naive_candidates(excess_precision(shards, [0, 1]), top_p=1.0, top_k=2).ids.shape == (
        1,
        2,
    )


@given(st.integers(2, 300), st.floats(0.5, 0.999))
def test_bins_are_the_fewest_that_reach_the_target(k: int, target: float) -> None:
    n = 10**7
    bins = n_bins(n, k, target)
    assert (1 - 1 / bins) ** (k - 1) >= target - 1e-12
    assert bins == k or (1 - 1 / (bins - 1)) ** (k - 1) < target + 1e-12


def test_bins_of_the_paper() -> None:
    assert n_bins(49152, 50, 0.95) == math.ceil(1 / (1 - 0.95 ** (1 / 49)))
    assert n_bins(49152, 1, 0.95) == 1
    assert n_bins(100, 50, 0.95) == n_bins(100, 50, 1.0) == 100
    for bad in ((10, 11, 0.9), (10, 0, 0.9), (10, 5, 0.0), (10, 5, 1.1)):
        with pytest.raises(ValueError, match="expected"):
            n_bins(*bad)


@given(st.integers(1, 400), st.data())
def test_approximate_top_k_keeps_the_best_and_invents_nothing(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    target = data.draw(st.floats(0.3, 1.0))
    logits = _distinct(n, data.draw(st.integers(0, 99)), rows=2)
    values, ids = approx_top_k(logits, k, target)
    assert torch.equal(logits.gather(1, ids), values)
    assert torch.equal(ids[:, 0], logits.argmax(dim=1))
    assert torch.equal(values, values.sort(dim=1, descending=True).values)
    if target == 1:
        assert torch.equal(ids, exact_top_k(logits, k)[1])


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_recall_is_what_was_asked_for(target: float) -> None:
    """In expectation at least the target; the upper bound says that bins are not wasted."""
    logits = _distinct(20_000, seed=1, rows=60)
    exact, found = exact_top_k(logits, 50)[1], approx_top_k(logits, 50, target)[1]
    recall = (exact[:, :, None] == found[:, None, :]).any(dim=2).float().mean().item()
    # Of 3000 tokens; the standard error is below 0.01. Mean recall is above the worst token's.
    assert target - 0.02 < recall < target + (1 - target) * 0.75


def test_losing_the_tail_loses_the_best_token_there_and_only_there() -> None:
    n, k = 1000, 20
    bins = n_bins(n, k, 0.9)
    tail = n - n % bins
    assert tail < n
    for best in (0, tail - 1, tail, n - 1):
        logits = _distinct(n, seed=2)
        logits[0, best] = 100.0
        assert approx_top_k(logits, k, 0.9)[1][0, 0].item() == best
        lost = best not in approx_top_k_losing_tail(logits, k, 0.9)[1][0].tolist()
        assert lost == (best >= tail)
    # A shape that the bins divide hides the fault: the result is that of the right algorithm.
    even = _distinct(4 * bins, seed=3)
    assert n_bins(4 * bins, k, 0.9) == bins
    for right, broken in zip(
        approx_top_k(even, k, 0.9), approx_top_k_losing_tail(even, k, 0.9), strict=True
    ):
        assert torch.equal(right, broken)


@pytest.mark.parametrize("n_shards", [1, 2, 5])
def test_naive_candidates_are_the_nucleus_then_the_best(n_shards: int) -> None:
    logits = _distinct(200, seed=4, rows=6)
    shards = list(logits.tensor_split(n_shards, dim=1))
    found = naive_candidates(shards, top_p=0.7, top_k=5)
    for row, (ids, kept) in enumerate(zip(found.ids, found.logits, strict=True)):
        probabilities = logits[row].double().softmax(0)
        order = probabilities.argsort(descending=True)
        before = probabilities[order].cumsum(0) - probabilities[order]
        expected = order[before < 0.7][:5]
        assert torch.equal(ids[kept.isfinite()], expected)


def test_a_nucleus_of_one_fails_its_own_test_where_precisions_differ() -> None:
    """bf16 has 0.96875 and 0.97265625: 0.970 rounds down and vanishes, 0.972 rounds up."""
    for p, vanishes in ((0.970, True), (0.972, False)):
        logits = torch.tensor([[p, (1 - p) / 2, (1 - p) / 2]]).log()
        best = torch.tensor([0])
        agreeing = naive_candidates([logits], top_p=0.95, top_k=2)
        assert agreeing.holds(best).all()
        both = torch.bfloat16
        assert (
            naive_candidates([logits], top_p=0.95, top_k=2, boundary=both, compared=both)
            .holds(best)
            .all()
        )
        differing = naive_candidates([logits], top_p=0.95, top_k=2, compared=torch.bfloat16)
        assert (not differing.holds(best).item()) == vanishes
        if vanishes:
            assert differing.first().item() == -1
            assert differing.draw(torch.zeros(1, 3)).item() == -1


def test_draws_follow_the_noise() -> None:
    logits = _distinct(50, seed=5, rows=3)
    found = naive_candidates(list(logits.tensor_split(3, dim=1)), top_p=1.0, top_k=50)
    noise = torch.randn(3, 50) * 10
    assert torch.equal(found.draw(noise), (logits + noise).argmax(dim=1))
