"""The pieces: Philox, noise and scores against the oracle's integers and rationals."""

from __future__ import annotations

import math

import pytest
from bitlens import _core
from hypothesis import given
from hypothesis import strategies as st
from support.sampling_oracle import exponential, philox, score

WORDS = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda n: (1 << n) - 1), st.just(2**64 - 1)
)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_has_the_words_of_its_authors(
    counter: list[int], key: list[int], words: list[int]
) -> None:
    """Known answers of Random123's kat_vectors; the kernels are held to this one by test_exact."""
    assert philox(counter, key) == words


@given(st.floats(-32, 0, width=32), WORDS)
def test_scores(d: float, r: int) -> None:
    assert _core.sampling_score(d, r) == score(d, r)


@given(WORDS)
def test_noise_has_full_relative_precision(r: int) -> None:
    """Against mpmath-free high precision: log1p of the exact quotient where fp64 holds it."""
    e = exponential(r)
    v = (2 * r + 1) / 2**65
    truth = -math.log1p(-v) if v < 0.5 else -math.log((2 * (2**64 - 1 - r) + 1) / 2**65)
    assert e == pytest.approx(truth, rel=1e-15)
    assert 0 < e < math.inf


@given(st.integers(0, 2**64 - 2**40))
def test_more_noise_is_a_lower_score(r: int) -> None:
    """Scores fall as the word grows, so a bound on v bounds the score (the fast path)."""
    assert _core.sampling_score(0.0, r) >= _core.sampling_score(0.0, r + 2**40)
