"""Each real.py and program.py state the same mathematics; bounds and enclosures agree."""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.bounds import error_bound
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import (
    BITLENS,
    BITLENS_BF16,
    HUGGINGFACE_LLAMA_BF16,
    HUGGINGFACE_LLAMA_FP32,
)
from bitlens.precision.emulation import emulate
from bitlens.precision.exact import reference
from bitlens.precision.formats import format_of
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.oracle import enclosure
from hypothesis import given, settings
from hypothesis import strategies as st
from support.every_operation import KINDS, draw

CONTRACTS = {
    "bitlens fp32": BITLENS,
    "bitlens bf16": BITLENS_BF16,
    "hugging face fp32": HUGGINGFACE_LLAMA_FP32,
    "hugging face bf16": HUGGINGFACE_LLAMA_BF16,
}


def _storage(contract: PrecisionContract) -> torch.dtype:
    dtype = format_of(contract.storage).dtype
    assert dtype is not None
    return dtype


@pytest.mark.parametrize("op", OPERATIONS)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_both_statements_have_the_same_true_value(op: str, kind: str, seed: int) -> None:
    inputs = draw(op, kind, seed, torch.float32)
    program = enclosure(inputs, PrecisionContract(op))
    definition = reference(op, inputs)
    apart = (program.exact - definition.value).abs()
    assert bool((apart <= program.error + definition.error).all())


@pytest.mark.parametrize(("family", "op"), [(f, op) for f, ops in CONTRACTS.items() for op in ops])
@settings(max_examples=10)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**20))
def test_an_honest_emulation_stays_within_the_closed_bound(
    family: str, op: str, kind: str, seed: int
) -> None:
    contract = CONTRACTS[family][op]
    inputs = draw(op, kind, seed, _storage(contract))
    truth = reference(op, inputs)
    error = (emulate(inputs, contract).double() - truth.value).abs() - truth.error
    bound = error_bound(contract, inputs)
    assert not bool((error > bound).any())
    # inf - inf: what overflows is not bounded either.
    assert bool(bound[error.isnan()].isinf().all())
