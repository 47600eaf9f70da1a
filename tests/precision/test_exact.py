"""precision/exact.py: three evaluations of the same truth, each within its error bar."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import pytest
import torch
from bitlens.precision.exact import Method, exact_dot, reference
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.reals.arb import Arb, to_fp64, working_precision
from bitlens.precision.ulp import ulp
from hypothesis import given, settings
from hypothesis import strategies as st
from support.every_operation import KINDS, draw

Tensor = torch.Tensor

FP32 = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100)

# Small enough for Python loops over balls.
FEW = 12


def _small(op: str, kind: str, seed: int) -> dict[str, Any]:
    """`draw`'s inputs, cut to a few elements along every axis they sum over."""
    inputs = draw(op, kind, seed, torch.float32)
    cut = {name: x for name, x in inputs.items() if isinstance(x, Tensor)}
    if op == "matmul":
        return {**inputs, "a": inputs["a"][:, :FEW], "b": inputs["b"][:FEW]}
    if op == "attention":
        k, v = inputs["k"][:, :FEW, :8], inputs["v"][:, :FEW, :8]
        return {**inputs, "q": inputs["q"][:, :2, :8], "k": k, "v": v, "causal": False}
    if op == "rope":
        return inputs
    if op == "log_softmax":  # further apart, 256 bits cannot tell a sum of exponentials from 1
        return {"x": inputs["x"][..., :FEW].clamp(-40.0, 40.0)}
    if op in ("quantize", "dequantize", "block_scale", "rank_sum"):
        return {name: x[:2] if isinstance(x, Tensor) else x for name, x in inputs.items()}
    if op == "moe_gate":
        return {
            name: x[..., :FEW] if isinstance(x, Tensor) else x for name, x in inputs.items()
        } | {"k": min(FEW, inputs["x"].shape[-1])}
    if op in ("conv1d", "group_norm"):
        return {**inputs, "x": inputs["x"][..., :FEW]}
    if op == "cross_entropy":
        return {**inputs, "x": inputs["x"][:, :FEW], "targets": inputs["targets"].clamp(max=1)}
    return {**inputs, **{name: x[..., :FEW] for name, x in cut.items()}}


@pytest.mark.parametrize("op", OPERATIONS)
@settings(max_examples=10)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_evaluations_agree_within_their_error_bars(op: str, kind: str, seed: int) -> None:
    inputs = _small(op, kind, seed)
    truth = reference(op, inputs, "arb")
    # Half an ULP of fp64 is what rounding the midpoint costs; the balls add next to nothing.
    assert bool((truth.error <= 0.51 * ulp(truth.value)).all())
    methods: tuple[Method, ...] = ("fp64", "exact")
    for method in methods:
        found = reference(op, inputs, method)
        apart = (found.value - truth.value).abs()
        assert bool((apart <= found.error + truth.error).all()), method
        assert found.value.shape == truth.value.shape


@given(
    st.lists(
        st.tuples(*[st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100)] * 2), min_size=1
    )
)
def test_exact_dot_is_the_rational_dot_rounded_once(pairs: list[tuple[float, float]]) -> None:
    tiny = 2.0**-70
    pairs = [(a if abs(a) > tiny else 0.0, b if abs(b) > tiny else 0.0) for a, b in pairs]
    a, b = (torch.tensor(x, dtype=torch.float64) for x in zip(*pairs, strict=True))
    expected = float(sum(Fraction(x) * Fraction(y) for x, y in pairs))
    assert exact_dot(a[None], b[:, None]).item() == expected


@given(st.lists(st.tuples(*[st.floats(min_value=-1e60, max_value=1e60)] * 2), min_size=1))
def test_exact_dot_splits_what_fp64_cannot_multiply(pairs: list[tuple[float, float]]) -> None:
    tiny = 2.0**-200
    pairs = [(a if abs(a) > tiny else 0.0, b if abs(b) > tiny else 0.0) for a, b in pairs]
    a, b = (torch.tensor(x, dtype=torch.float64) for x in zip(*pairs, strict=True))
    expected = float(sum(Fraction(x) * Fraction(y) for x, y in pairs))
    assert exact_dot(a[None], b[:, None]).item() == expected


def test_exact_dot_survives_total_cancellation_where_fp64_does_not() -> None:
    a = torch.tensor([[2.0**60, 1.0, -(2.0**60)]], dtype=torch.float64)
    ones = torch.ones(3, 1, dtype=torch.float64)
    assert exact_dot(a, ones).item() == 1.0
    assert (a @ ones).item() == 0.0


def test_exact_dot_broadcasts_batches_and_refuses_products_out_of_range() -> None:
    a, b = torch.randn(2, 1, 3, 4), torch.randn(5, 4, 2)
    assert exact_dot(a, b).shape == (2, 5, 3, 2)
    torch.testing.assert_close(exact_dot(a, b), a.double() @ b.double())
    small = torch.full((1, 1), 1e-200, dtype=torch.float64)
    with pytest.raises(ValueError, match="scale"):
        exact_dot(small, small)


def test_the_exact_matmul_includes_its_bias_before_rounding() -> None:
    inputs = {
        "a": torch.tensor([[2.0**60, 1.0]], dtype=torch.float64),
        "b": torch.ones(2, 1, dtype=torch.float64),
        "bias": torch.tensor([-(2.0**60)], dtype=torch.float64),
    }
    assert reference("matmul", inputs, "exact").value.item() == 1.0
    assert reference("matmul", inputs).value.item() == 0.0
    assert reference("matmul", inputs).error.item() >= 1.0


def test_balls_hold_constants_known_to_many_digits() -> None:
    with working_precision():
        over = Arb()
        e, error = to_fp64(over.exp(over.lift(torch.tensor([1.0, -torch.inf]))))
        pi, _ = to_fp64(over.constant("pi"))
    assert e.tolist() == [math.e, 0.0]
    assert error[0] <= ulp(e)[0] / 2
    assert pi.item() == math.pi


def test_wrong_arguments_name_themselves() -> None:
    x = {"x": torch.ones(3)}
    with pytest.raises(ValueError, match="arb"):
        reference("silu", x, "mpmath")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rms_norm"):
        reference("norm", x)
    with pytest.raises(ValueError, match="finite"):
        reference("silu", {"x": torch.tensor([torch.nan])})


def test_arb_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match="python-flint"):
        reference("silu", {"x": torch.ones(3)}, "arb")
