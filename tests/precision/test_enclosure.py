"""Soundness: no correct implementation is ever accused, whatever the inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from bitlens import _core
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import BITLENS, BITLENS_BF16
from bitlens.precision.emulation import emulate
from bitlens.precision.exact import reference
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.oracle import Verdict, check, enclosure
from bitlens.precision.reals.definitions import arguments_of
from bitlens.precision.search import arguments_needed, arguments_taken
from bitlens.precision.strategies.inputs import inputs_for
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.bitlens_kernels import KERNELS
from support.every_operation import CORRECT, FUNCTION_ULP, each, each_with

Tensor = torch.Tensor

STORED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EXAMPLES = settings().max_examples
"""Of the profile in use; each test takes a part."""

REDUCING = [op for op in OPERATIONS if OPERATIONS[op].reduces]


def _arguments(op: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Defaults that the plain implementations do not know."""
    if op == "attention":
        return {"causal": False, "scale": inputs["q"].shape[-1] ** -0.5, **inputs}
    if op in ("rms_norm", "layer_norm"):
        return {"eps": 1e-6 if op == "rms_norm" else 1e-5, **inputs}
    if op == "rope" and not {"cos", "inv_freq"} & set(inputs):
        return {"theta": 10000.0, **inputs}
    return {"approximate": "none", **inputs} if op == "gelu" else inputs


def _check_not_accused(verdict: Verdict, name: str) -> None:
    """Of 0 / 0 alone a contract claims nothing, which is no success, and no accusation."""
    assert not verdict.violations, f"{name}: {verdict.reason}"
    assert verdict.ok == bool(verdict.claimed), f"{name}: {verdict.reason}"


@pytest.mark.parametrize(("op", "storage"), each_with(OPERATIONS, STORED, "bf16"))
@given(data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_torch_and_numpy_are_never_accused(op: str, storage: str, data: st.DataObject) -> None:
    contract = PrecisionContract(op, storage=storage)
    inputs = data.draw(inputs_for(contract, max_size=130))
    arguments = arguments_of(op, inputs)
    for name, implementation in CORRECT[op].items():
        honest = dataclasses.replace(contract, function_ulp=FUNCTION_ULP.get(name, 2.0))
        y = implementation(**arguments).to(STORED[storage])
        verdict = check(y, inputs, honest)
        _check_not_accused(verdict, name)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
@pytest.mark.parametrize("op", KERNELS)
@given(data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_bitlens_kernels_are_never_accused(
    op: str, policy: str, isa: str, data: st.DataObject
) -> None:
    contract = (BITLENS if policy == "fp32" else BITLENS_BF16)[op]
    taken, needed = arguments_taken(KERNELS[op], op), arguments_needed(KERNELS[op])
    drawn = data.draw(inputs_for(contract, max_size=520, arguments=taken, needed=needed))
    inputs = _arguments(op, drawn)
    assume(op != "attention" or inputs["causal"])
    assume(op != "rope" or ("cos" not in inputs and int(inputs["positions"].max()) < 4096))
    before = _core.isa_setting()
    _core.set_isa(isa)
    try:
        y = KERNELS[op](**inputs)
    finally:
        _core.set_isa(before)
    _check_not_accused(check(y, inputs, contract), op)


@pytest.mark.parametrize("order", ["sequential", "pairwise", "blocked:16", "pairs:4:16"])
@pytest.mark.parametrize("accumulate", ["fp32", "bf16"])
@pytest.mark.parametrize("op", each(REDUCING))
@given(data=st.data())
@settings(max_examples=EXAMPLES // 6)
def test_promised_orders_and_narrow_sums(
    op: str, accumulate: str, order: str, data: st.DataObject
) -> None:
    contract = PrecisionContract(op, storage="bf16", accumulate=accumulate, order=order)
    inputs = data.draw(inputs_for(contract, max_size=65))
    _check_not_accused(check(emulate(inputs, contract), inputs, contract), op)


@pytest.mark.parametrize(
    ("compute", "casts"), [("bf16", "all"), ("fp32", "all"), ("fp64", "all"), ("bf16", "none")]
)
@pytest.mark.parametrize("op", each(OPERATIONS))
@given(data=st.data())
@settings(max_examples=EXAMPLES // 6)
def test_every_cast_point_and_compute_format(
    op: str, compute: str, casts: str, data: st.DataObject
) -> None:
    points = tuple(p for p in OPERATIONS[op].cast_points if p != "inputs")
    contract = PrecisionContract(
        op,
        storage="bf16",
        compute=compute,
        accumulate="fp64" if compute == "fp64" else "fp32",
        casts=points if casts == "all" else ("output",),
    )
    inputs = data.draw(inputs_for(contract, max_size=65))
    _check_not_accused(check(emulate(inputs, contract), inputs, contract), op)


@pytest.mark.parametrize("op", OPERATIONS)
@given(data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_fp64_contracts_hold_torch_fp64(op: str, data: st.DataObject) -> None:
    contract = PrecisionContract(op, storage="fp64", compute="fp64", accumulate="fp64")
    narrow = PrecisionContract(op)
    inputs = {
        name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in data.draw(inputs_for(narrow, max_size=65)).items()
    }
    _check_not_accused(check(emulate(inputs, contract), inputs, contract), op)


@pytest.mark.parametrize("op", OPERATIONS)
@given(data=st.data())
@settings(max_examples=EXAMPLES // 6)
def test_the_real_value_is_where_arb_puts_it(op: str, data: st.DataObject) -> None:
    contract = PrecisionContract(op)
    inputs = data.draw(inputs_for(contract, max_size=17))
    found = enclosure(inputs, contract)
    truth = reference(op, inputs, "arb")
    known = found.exact.isfinite() & truth.value.isfinite()
    assert bool(((found.exact - truth.value).abs() <= found.error + truth.error)[known].all())


@pytest.mark.parametrize("op", OPERATIONS)
@given(data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_the_correct_rounding_is_permitted(op: str, data: st.DataObject) -> None:
    contract = PrecisionContract(op, storage="bf16")
    inputs = data.draw(inputs_for(contract, max_size=65))
    allowed = enclosure(inputs, contract)
    claimed = allowed.exact.isfinite() & ~(allowed.lo.isnan() | allowed.hi.isnan())
    unrounded = allowed.unrounded
    inside = (unrounded.lo - allowed.error <= allowed.exact) & (
        allowed.exact <= unrounded.hi + allowed.error
    )
    assert bool(inside[claimed].all())
