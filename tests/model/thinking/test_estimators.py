"""Estimators against enumeration of every subset."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from bitlens.model.thinking import best, best_of_n, maj_at_k, pass_at_k, vote, weighted_vote
from hypothesis import given
from hypothesis import strategies as st

answers_and_k = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=7).flatmap(
    lambda answers: st.tuples(st.just(answers), st.integers(1, len(answers)))
)


@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), rel=1e-14)


@given(answers_and_k)
def test_maj_at_k(case: tuple[list[str | None], int]) -> None:
    answers, k = case
    shares: Counter[str] = Counter()
    subsets = list(itertools.combinations(answers, k))
    for subset in subsets:
        votes = Counter(answer for answer in subset if answer is not None)
        winners = [a for a in votes if votes[a] == max(votes.values())]
        for winner in winners:
            shares[winner] += 1 / len(winners) / len(subsets)
    found = maj_at_k(answers, k)
    assert set(found) == {answer for answer in answers if answer is not None}
    for answer, share in found.items():
        assert share == pytest.approx(shares[answer], abs=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7).flatmap(
        lambda rows: st.tuples(st.just(rows), st.integers(1, len(rows)))
    )
)
def test_best_of_n(case: tuple[list[tuple[int, bool]], int]) -> None:
    rows, n = case
    subsets = list(itertools.combinations(rows, n))
    total = 0.0
    for subset in subsets:
        top = [right for score, right in subset if score == max(s for s, _ in subset)]
        total += sum(top) / len(top) / len(subsets)
    assert best_of_n([s for s, _ in rows], [r for _, r in rows], n) == pytest.approx(
        total, abs=1e-12
    )


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_the_oracle_is_pass_at_n_and_chance_is_the_mean(
    right: list[bool], data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(right)))
    oracle = best_of_n([float(r) for r in right], right, n)
    assert oracle == pytest.approx(pass_at_k(len(right), sum(right), n), rel=1e-14)
    assert best_of_n([0.0] * len(right), right, n) == pytest.approx(sum(right) / len(right))


def test_selections() -> None:
    assert vote(["b", "a", None, "a", "b"]) == "b"
    assert vote([None, None]) is None
    assert weighted_vote(["a", "b", "a"], [1.0, 2.5, 1.0]) == "b"
    assert best(["a", None, "c"], [-3.0, 9.0, -2.0]) == "c"
    assert best([None], [1.0]) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pass_at_k(3, 1, 4), "k = 4"),
        (lambda: pass_at_k(3, 4, 1), "c = 4"),
        (lambda: maj_at_k(["a"], 2), "k = 2"),
        (lambda: best_of_n([1.0], [True], 0), "k = 0"),
        (lambda: best_of_n([math.nan], [True], 1), "NaN"),
        (lambda: best_of_n([1.0], [True, False], 1), "1 scores of 2"),
        (lambda: weighted_vote(["a"], [-1.0]), "weights"),
        (lambda: weighted_vote(["a"], []), "1 answers"),
        (lambda: best(["a"], [math.nan]), "NaN"),
    ],
)
def test_bad_numbers_are_refused(call: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()  # type: ignore[operator]
