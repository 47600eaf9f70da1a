"""Inputs drawn for a contract: valid, of every kind, and compact when printed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.formats import FORMATS
from bitlens.precision.operations import OPERATIONS, validate_inputs
from bitlens.precision.strategies import (
    Constant,
    DotFactor,
    DrawnInputs,
    Edit,
    Integers,
    Listed,
    Near,
    Random,
    Recipe,
    Steps,
    Ties,
    inputs_for,
    strategy_names,
)
from hypothesis import find, given, settings
from hypothesis import strategies as st
from support.every_operation import each, each_with

STORAGES = ["bf16", "fp16", "fp32", "fp8_e4m3", "fp8_e5m2"]
NAMES = {
    kind.__name__: kind
    for kind in (
        Constant, DotFactor, DrawnInputs, Edit, Integers, Listed, Near, Random, Recipe, Steps, Ties
    )
} | {"inf": math.inf}  # fmt: skip
SEARCH = settings(max_examples=300, derandomize=True, database=None)


@pytest.mark.parametrize(("op", "storage"), each_with(OPERATIONS, STORAGES, "bf16"))
@given(data=st.data())
@settings(max_examples=15)
def test_inputs_are_valid(op: str, storage: str, data: st.DataObject) -> None:
    """Every kind gives inputs of fitting shapes, in the contract's storage format."""
    contract = PrecisionContract(op, storage=storage)
    kind = data.draw(st.sampled_from(strategy_names(contract)))
    inputs = data.draw(inputs_for(contract, strategies=[kind]))
    validate_inputs(op, inputs)
    dtypes = {x.dtype for x in inputs.values() if isinstance(x, torch.Tensor)} - {torch.int64}
    assert dtypes == {FORMATS[storage].dtype}


@given(data=st.data())
def test_printed_inputs_rebuild_the_same_bits(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(list(OPERATIONS)))
    inputs = data.draw(inputs_for(PrecisionContract(op, storage="bf16")))
    again = eval(repr(inputs), dict(NAMES))
    assert set(again) == set(inputs)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == again[name].dtype
            assert torch.equal(
                value.double().view(torch.int64), again[name].double().view(torch.int64)
            )
        else:
            assert value == again[name]


def test_large_inputs_print_compactly() -> None:
    contract = PrecisionContract("matmul", storage="bf16")
    found = find(inputs_for(contract), lambda x: x["a"].numel() > 700, settings=SEARCH)
    assert len(repr(found)) < 500


@pytest.mark.parametrize("op", each(OPERATIONS))
def test_a_kind_shrinks_to_its_plainest(op: str) -> None:
    contract = PrecisionContract(op, storage="bf16")
    found: Any = find(
        inputs_for(contract, strategies=["random"]), lambda inputs: True, settings=SEARCH
    )
    assert max(x.numel() for x in found.values() if isinstance(x, torch.Tensor)) <= 2


def test_an_unknown_kind_is_named() -> None:
    contract = PrecisionContract("rope", storage="bf16")
    with pytest.raises(ValueError, match="attention_sinks: no strategy for rope stored in bf16"):
        find(inputs_for(contract, strategies=["attention_sinks"]), lambda inputs: True)
