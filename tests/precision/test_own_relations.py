"""bitlens's kernels need no reference to be caught: exact lattices and metamorphic relations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens import _core
from bitlens.precision.contracts import bitlens_contract
from bitlens.precision.formats import FORMATS
from bitlens.precision.lattice import judge_lattice, lattice_inputs
from bitlens.precision.metamorphic import (
    batch_invariance,
    lattice_permutation,
    padding_invariance,
    power_of_two_scaling,
    split_invariance,
)
from hypothesis import given
from hypothesis import strategies as st
from support.bitlens_kernels import KERNELS
from support.every_operation import KINDS, draw

SEEDS = st.integers(0, 2**20)
ROWWISE = ("matmul", "rms_norm", "softmax", "logsumexp")


@pytest.fixture(params=_core.available_isas(), autouse=True)
def _isa(request: pytest.FixtureRequest) -> None:
    _core.set_isa(request.param)


@pytest.mark.parametrize("policy", ["fp32", "bf16"])
@given(terms=st.integers(1, 1500), seed=SEEDS)
def test_linear_is_exact_on_the_lattice_in_any_order(policy: str, terms: int, seed: int) -> None:
    contract = bitlens_contract("matmul", policy)
    dtype = FORMATS[policy].dtype
    drawn = lattice_inputs(contract, 3, terms, 33, seed)
    inputs: dict[str, Any] = {name: x.to(dtype) for name, x in drawn.items()}
    verdict = judge_lattice(KERNELS["matmul"](**inputs), inputs, contract)
    assert verdict.ok, verdict.reason
    permuted = lattice_permutation(KERNELS["matmul"], inputs, contract, seed)
    assert permuted.ok, permuted.reason


@pytest.mark.parametrize("op", ["matmul", "rms_norm", "attention"])
@given(seed=SEEDS, exponent=st.integers(-8, 8), dtype=st.sampled_from(["fp32", "bf16"]))
def test_kernels_scale_with_powers_of_two(op: str, seed: int, exponent: int, dtype: str) -> None:
    inputs = draw(op, "normal", seed, FORMATS[dtype].dtype or torch.float32)
    if op == "rms_norm":
        inputs["eps"] = 2.0**-17
    if op == "attention":
        inputs["causal"] = True
    for relation in power_of_two_scaling(KERNELS[op], op, inputs, exponent):
        assert relation.ok, relation.reason


@pytest.mark.parametrize("op", ROWWISE)
@given(kind=st.sampled_from(KINDS), seed=SEEDS, row=st.integers(1, 3))
def test_rows_do_not_see_each_other(op: str, kind: str, seed: int, row: int) -> None:
    inputs = draw(op, kind, seed, torch.float32)
    for relation in (
        batch_invariance(KERNELS[op], op, inputs, row),
        padding_invariance(KERNELS[op], op, inputs, 8 * row),
        split_invariance(KERNELS[op], op, inputs, row),
    ):
        assert relation.ok, relation.reason
