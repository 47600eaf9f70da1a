"""precision/metamorphic.py: relations hold for correct code and break for code that breaks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.lattice import lattice_inputs
from bitlens.precision.metamorphic import (
    batch_invariance,
    lattice_permutation,
    padding_invariance,
    power_of_two_scaling,
    split_invariance,
)
from hypothesis import given
from hypothesis import strategies as st
from support.every_operation import CORRECT, draw

Tensor = torch.Tensor

# eps is the caller's float, which these round to fp32 and so scale with the rest.
SCALING = ["matmul", "rms_norm", "layer_norm", "rope", "swiglu"]
ROWWISE = {
    "matmul": "chain",
    "rms_norm": "chain",
    "layer_norm": "chain",
    "softmax": "chain",
    "logsumexp": "chain",
}


@pytest.mark.parametrize("op", SCALING)
@given(seed=st.integers(0, 2**20), exponent=st.integers(-10, 10))
def test_correct_code_scales_with_powers_of_two(op: str, seed: int, exponent: int) -> None:
    inputs = draw(op, "normal", seed, torch.float32)
    if op in ("rms_norm", "layer_norm"):
        inputs["eps"] = 2.0**-17
    for name, fn in CORRECT[op].items():
        for relation in power_of_two_scaling(fn, op, inputs, exponent):
            assert relation.ok, (name, relation.reason)


def test_attention_scales_in_its_values_and_between_queries_and_keys() -> None:
    inputs = draw("attention", "normal", 3, torch.float32)
    relations = power_of_two_scaling(CORRECT["attention"]["eager"], "attention", inputs, 5)
    assert [r.ok for r in relations] == [True, True]


def test_an_absolute_constant_breaks_scaling() -> None:
    def shifted(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return a @ b + 1e-3

    relations = power_of_two_scaling(
        shifted, "matmul", draw("matmul", "normal", 2, torch.float32), 3
    )
    assert not any(r.ok for r in relations)
    assert "ULP" in relations[0].reason
    assert relations[0].where is not None


def test_flushing_subnormals_breaks_scaling() -> None:
    def flushing(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        y = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
        return torch.where(y.abs() < torch.finfo(torch.float32).tiny, 0.0 * y, y)

    tables = {"cos": torch.ones(1, 2), "sin": torch.zeros(1, 2)}
    inputs: dict[str, Any] = {"x": torch.full((1, 4), 2.0**-120), **tables}
    assert all(r.ok for r in power_of_two_scaling(flushing, "rope", inputs, -2))
    assert not any(r.ok for r in power_of_two_scaling(flushing, "rope", inputs, -8))


@given(terms=st.integers(1, 300), seed=st.integers(0, 2**20))
def test_permuted_lattice_terms_give_the_same_bits(terms: int, seed: int) -> None:
    contract = PrecisionContract("matmul")
    inputs: dict[str, Any] = dict(lattice_inputs(contract, 3, terms, 4, seed))
    for name, fn in CORRECT["matmul"].items():
        relation = lattice_permutation(fn, inputs, contract, seed)
        assert relation.ok, (name, relation.reason)


def test_permutation_catches_a_narrow_accumulator() -> None:
    def narrow(a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.bfloat16)
        for i in range(a.shape[1]):
            total = total + (a[:, i : i + 1] * b[i]).bfloat16()
        return total

    contract = PrecisionContract("matmul", storage="bf16")
    inputs = lattice_inputs(contract, 4, 100, 4)
    assert not lattice_permutation(narrow, inputs, contract).ok
    with pytest.raises(ValueError, match="lattice"):
        lattice_permutation(narrow, {"a": torch.rand(2, 3), "b": torch.rand(3, 2)}, contract)


@pytest.mark.parametrize("op", ROWWISE)
def test_rows_computed_each_alone_are_invariant(op: str) -> None:
    inputs, fn = draw(op, "wide", 4, torch.float32), CORRECT[op][ROWWISE[op]]
    for relation in (
        batch_invariance(fn, op, inputs, 2),
        padding_invariance(fn, op, inputs, 3),
        split_invariance(fn, op, inputs, 1),
    ):
        assert relation.ok, relation.reason


def test_a_sum_whose_order_depends_on_the_batch_is_caught() -> None:
    def by_batch(x: Tensor) -> Tensor:
        block = 4 if x.shape[0] > 4 else 64
        total = torch.zeros(x.shape[0])
        for part in x.split(block, -1):
            total = total + part.sum(-1)
        return total

    inputs = draw("logsumexp", "wide", 4, torch.float32)
    assert not batch_invariance(by_batch, "logsumexp", inputs, 0).ok
    assert not split_invariance(by_batch, "logsumexp", inputs, 3).ok
    assert padding_invariance(by_batch, "logsumexp", inputs, 9).ok


def test_the_sign_of_a_zero_counts_and_a_nan_does_not() -> None:
    inputs = {"x": torch.zeros(2, 3)}

    def signs(x: Tensor) -> Tensor:
        return torch.full((len(x),), -0.0 if len(x) == 1 else 0.0)

    def nans(x: Tensor) -> Tensor:
        return torch.full((len(x),), torch.nan)

    assert not batch_invariance(signs, "silu", inputs, 0).ok
    assert batch_invariance(nans, "silu", inputs, 0).ok


def test_wrong_arguments_name_themselves() -> None:
    with pytest.raises(ValueError, match="softmax"):
        power_of_two_scaling(torch.softmax, "softmax", {"x": torch.ones(2)}, 1)
    with pytest.raises(ValueError, match="attention"):
        batch_invariance(torch.relu, "attention", {}, 0)
