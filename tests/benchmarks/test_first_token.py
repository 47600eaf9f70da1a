"""The place where a measured curve reaches a value."""

from __future__ import annotations

import pytest
from bitlens.benchmarks.suites.first_token import shortest
from hypothesis import given
from hypothesis import strategies as st

CURVE = {256: 8.0, 1024: 16.0, 4096: 64.0}


@given(
    factor=st.floats(0.01, 10.0),
    power=st.floats(0.2, 3.0),
    n=st.floats(256.0, 4096.0),
)
def test_a_power_law_is_met_where_it_is(factor: float, power: float, n: float) -> None:
    curve = {m: factor * m**power for m in (256, 512, 2048, 4096)}
    assert shortest(curve, factor * n**power) == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize(("wanted", "n"), [(5, 256), (8, 256), (16, 1024), (32, 2048), (64, 4096)])
def test_between_what_was_measured(wanted: float, n: float) -> None:
    assert shortest(CURVE, wanted) == pytest.approx(n)


def test_what_is_never_reached() -> None:
    assert shortest(CURVE, 64.1) is None
    assert shortest({}, 1) is None
