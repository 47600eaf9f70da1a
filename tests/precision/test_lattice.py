"""precision/lattice.py: correct code in any order is exact there, a narrow accumulator is not."""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.formats import round_to
from bitlens.precision.lattice import judge_lattice, lattice_inputs, on_lattice
from hypothesis import given
from hypothesis import strategies as st
from support.every_operation import CORRECT

Tensor = torch.Tensor

FP32 = PrecisionContract("matmul")
BF16 = PrecisionContract("matmul", storage="bf16")
FP16 = PrecisionContract("matmul", storage="fp16")
TF32 = PrecisionContract("matmul", compute="tf32", casts=("inputs", "output"))
FP8 = PrecisionContract("matmul", storage="fp8_e4m3", output="bf16")
CONTRACTS = [FP32, BF16, FP16, TF32, FP8]
NAMES = ["fp32", "bf16", "fp16", "tf32", "fp8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _narrow_chain(a: Tensor, b: Tensor, fmt: str) -> Tensor:
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64)
    for i in range(a.shape[1]):
        total = round_to(total + a[:, i : i + 1].double() * b[i].double(), fmt)
    return total


@pytest.mark.parametrize("contract", CONTRACTS, ids=NAMES)
@given(terms=st.integers(1, 2000), seed=st.integers(0, 2**30))
def test_what_is_drawn_lies_on_the_lattice(
    contract: PrecisionContract, terms: int, seed: int
) -> None:
    inputs = lattice_inputs(contract, 3, terms, 4, seed)
    assert inputs["a"].shape == (3, terms)
    assert inputs["b"].shape == (terms, 4)
    assert on_lattice(inputs, contract)


@pytest.mark.parametrize("contract", CONTRACTS[:3], ids=NAMES[:3])
@given(terms=st.integers(1, 300), seed=st.integers(0, 2**30))
def test_every_correct_order_passes(contract: PrecisionContract, terms: int, seed: int) -> None:
    inputs = lattice_inputs(contract, 3, terms, 4, seed)
    for name, matmul in CORRECT["matmul"].items():
        actual = matmul(**inputs).to(DTYPES[contract.storage])
        verdict = judge_lattice(actual, inputs, contract)
        assert verdict.ok, (name, verdict.reason)


@pytest.mark.parametrize("terms", [64, 1024])
@pytest.mark.parametrize("narrow", ["bf16", "fp16", "tf32"])
def test_a_narrow_accumulator_is_caught(terms: int, narrow: str) -> None:
    contract = PrecisionContract("matmul", storage="bf16", output="fp32")
    inputs = lattice_inputs(contract, 8, terms, 8)
    verdict = judge_lattice(_narrow_chain(**inputs, fmt=narrow).float(), inputs, contract)
    assert not verdict.ok
    assert verdict.wrong > 0
    assert verdict.where is not None
    assert str(verdict.where) in verdict.reason


def test_an_output_rounded_the_wrong_way_is_caught() -> None:
    inputs = lattice_inputs(BF16, 8, 100, 8)
    exact = inputs["a"].double() @ inputs["b"].double()
    assert judge_lattice(round_to(exact, "bf16").bfloat16(), inputs, BF16).ok
    assert not judge_lattice(round_to(exact, "bf16", "toward_zero").bfloat16(), inputs, BF16).ok


def test_sums_reach_the_edge_of_the_accumulator() -> None:
    inputs = lattice_inputs(FP32, 16, 100, 16)
    magnitude = inputs["a"].double().abs() @ inputs["b"].double().abs()
    assert 2.0**20 < magnitude.max() <= 2.0**24
    assert (inputs["a"].double() @ inputs["b"].double()).abs().max() == magnitude[:, ::2].max()


def test_the_bias_counts() -> None:
    inputs = {"a": torch.ones(1, 4), "b": torch.ones(4, 1), "bias": torch.tensor([2.0**24])}
    assert not on_lattice(inputs, FP32)
    inputs["bias"] -= 4
    assert on_lattice(inputs, FP32)
    assert judge_lattice(torch.tensor([[2.0**24]]), inputs, FP32).ok


def test_wrong_arguments_name_themselves() -> None:
    inputs = {"a": torch.full((1, 2), 0.5), "b": torch.ones(2, 1)}
    with pytest.raises(ValueError, match="integers"):
        judge_lattice(torch.ones(1, 1), inputs, FP32)
    good = lattice_inputs(FP32, 2, 3, 4)
    with pytest.raises(ValueError, match="output"):
        judge_lattice(torch.ones(1, 1), good, FP32)
    with pytest.raises(ValueError, match="terms"):
        lattice_inputs(FP32, 1, 2**25, 1)
    with pytest.raises(ValueError, match="softmax"):
        lattice_inputs(PrecisionContract("softmax"), 1, 2, 3)
