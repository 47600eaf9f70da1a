"""Attention whose scores are soft-capped, judged by its contract, bounds and condition numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitlens.precision.bounds import error_bound
from bitlens.precision.condition import condition_number
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import bitlens_contract
from bitlens.precision.emulation import emulate
from bitlens.precision.exact import reference
from bitlens.precision.inputs import InputsError
from bitlens.precision.oracle import check
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bitlens_kernels import KERNELS
from support.every_operation import CORRECT, draw

Inputs = dict[str, Any]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CAPS = st.sampled_from([0.5, 2.0, 50.0])
SEEDS = st.integers(0, 2**20)


def capped(seed: int, cap: float, dtype: torch.dtype = torch.float32) -> Inputs:
    return draw("attention", "normal", seed, dtype) | {"cap": cap, "causal": True}


@pytest.mark.parametrize("storage", DTYPES)
@settings(max_examples=20)
@given(seed=SEEDS, cap=CAPS)
def test_the_kernel_keeps_its_contract(storage: str, seed: int, cap: float) -> None:
    inputs = capped(seed, cap, DTYPES[storage])
    verdict = check(KERNELS["attention"](**inputs), inputs, bitlens_contract("attention", storage))
    assert verdict.ok, verdict.reason


@settings(max_examples=20)
@given(seed=SEEDS, cap=CAPS)
def test_eager_code_and_the_emulation_keep_theirs_and_the_bound(seed: int, cap: float) -> None:
    inputs, contract = capped(seed, cap), PrecisionContract("attention")
    bound, truth = error_bound(contract, inputs), reference("attention", inputs).value
    for actual in (CORRECT["attention"]["eager"](**inputs), emulate(inputs, contract)):
        verdict = check(actual, inputs, contract)
        assert verdict.ok, verdict.reason
        assert bool(((actual.double() - truth).abs() <= bound).all())


@pytest.mark.parametrize("other", [None, 2.002])
def test_another_cap_breaks_the_contract(other: float | None) -> None:
    """The negative control, both ways round."""
    contract = bitlens_contract("attention", "fp32")
    inputs = capped(5, 2.0)
    changed = inputs | {"cap": other}
    assert not check(KERNELS["attention"](**changed), inputs, contract).ok
    assert not check(KERNELS["attention"](**inputs), changed, contract).ok


@settings(max_examples=20)
@given(seed=SEEDS, cap=CAPS)
def test_real_values_agree(seed: int, cap: float) -> None:
    inputs = capped(seed, cap) | {"causal": False}
    for name in "qkv":
        inputs[name] = inputs[name][:, :6, :8]
    truth, fp64 = reference("attention", inputs, "arb"), reference("attention", inputs, "fp64")
    assert bool(((truth.value - fp64.value).abs() <= truth.error + fp64.error).all())


def test_condition_number_bounds_what_a_perturbation_moves() -> None:
    inputs = capped(3, 1.0) | {"causal": False}
    kappa, y = condition_number("attention", inputs), reference("attention", inputs).value
    generator = torch.Generator().manual_seed(0)
    moved = dict(inputs)
    for name in "qv":
        x = inputs[name].double()
        moved[name] = x * (1 + 1e-7 * (2 * torch.rand(x.shape, generator=generator) - 1))
    change = (reference("attention", moved).value - y).abs() / y.abs()
    assert bool((change <= 1e-7 * kappa * 1.01).all())
    plain, wide = (condition_number("attention", inputs | {"cap": c}) for c in (None, 1e9))
    torch.testing.assert_close(wide, plain, rtol=1e-6, atol=0)
    assert not torch.equal(kappa, plain)


@pytest.mark.parametrize("cap", [0.0, -1.0, float("inf"), "2"])
def test_a_cap_is_a_positive_number(cap: Any) -> None:
    with pytest.raises(InputsError, match="cap="):
        check(torch.zeros(1), capped(0, 1.0) | {"cap": cap}, PrecisionContract("attention"))
