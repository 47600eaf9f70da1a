"""Delta debugging: what it keeps, what it throws away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.audit.shrink import AXES, Shrinking, pick, picked_output, significand, simpler
from hypothesis import given
from hypothesis import strategies as st
from support.small_inputs import inputs_of, run


@pytest.mark.parametrize("op", AXES)
def test_picking_keeps_the_element(op: str) -> None:
    """One output element on its own is what it was among the others, in fp32 up to order."""
    inputs = inputs_of(op)
    y = run(op, inputs)
    where = tuple(size - 1 for size in y.shape)
    alone = run(op, pick(op, inputs, where))
    torch.testing.assert_close(alone, picked_output(op, y, where))
    assert alone.numel() <= y.numel() / y.shape[-2 if y.ndim > 1 else -1]


@pytest.mark.parametrize("op", AXES)
def test_the_result_is_simple_and_still_shows_it(op: str) -> None:
    inputs = inputs_of(op)
    where = tuple(0 for _ in run(op, inputs).shape)

    def score(candidate: dict[str, Any]) -> float:
        return float(run(op, candidate).abs().max() > 0)

    shrinking = Shrinking(op, score, target=1.0)
    found = shrinking.run(inputs, where)
    assert score(found) == 1.0
    assert 0 < shrinking.checks <= shrinking.budget
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if op not in ("rope", "rotated_attention", "attention_block"):  # pairs turned by positions
        assert sum(t.numel() for t in tensors.values()) <= 4
    values = torch.cat([t.flatten().double() for t in tensors.values()])
    assert set(values.abs().tolist()) <= {0.0, 1.0, 4.0}  # 4: a position


@given(st.sets(st.integers(0, 15), min_size=1, max_size=4))
def test_terms_that_matter_are_all_that_is_left(wanted: set[int]) -> None:
    inputs = inputs_of("matmul")
    inputs["a"][0] = torch.arange(1.0, 17.0)
    names = {float(i + 1) for i in wanted}

    def score(candidate: dict[str, Any]) -> float:
        return float(names <= set(candidate["a"].flatten().tolist()))

    shrinking = Shrinking("matmul", score, target=1.0, budget=2000)
    found = shrinking.run(inputs, (0, 3))
    assert set(found["a"].flatten().tolist()) == names
    assert found["b"].shape == (len(wanted), 1)


def test_the_budget_is_kept_and_errors_are_no_result() -> None:
    def score(candidate: dict[str, Any]) -> float:
        if candidate["a"].shape[1] < 16:
            raise ValueError("needs all terms")
        return 1.0

    shrinking = Shrinking("matmul", score, target=1.0, budget=9)
    assert shrinking.run(inputs_of("matmul"), (1, 1))["a"].shape == (1, 16)
    assert shrinking.checks == 9


@given(st.floats(-1e30, 1e30, allow_subnormal=False), st.integers(1, 20))
def test_significands(value: float, bits: int) -> None:
    x = torch.tensor(value, dtype=torch.float64)
    rounded = significand(x, bits)
    mantissa, _ = torch.frexp(rounded)
    assert float(mantissa * 2**bits) == int(mantissa * 2**bits)
    assert abs(float(rounded) - value) <= abs(value) * 2.0**-bits
    assert list(simpler(0.0)) == []
