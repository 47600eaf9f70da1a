"""Faults at an address: one way for single operations and models."""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.divergence import difference
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.inject import SingleOperation, inject_fault
from bitlens.precision.oracle import check
from support.addressed_toy import Toy

NORM = PrecisionContract("rms_norm", storage="bf16")


def norm_inputs() -> dict[str, torch.Tensor | float]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 512, generator=generator).bfloat16()
    weight = (1 + 0.1 * torch.randn(512, generator=generator)).bfloat16()
    return {"x": x, "weight": weight, "eps": 1e-5}


def torch_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x.float(), (512,), weight.float(), eps).bfloat16()


@pytest.mark.parametrize(
    "fault", ["missing_upcast", "extra_cast", "truncating_cast", "low_precision_accumulator"]
)
def test_a_fault_in_a_single_operation_breaks_its_contract(fault: str) -> None:
    inputs = norm_inputs()
    for operation in (SingleOperation(NORM), SingleOperation(NORM, torch_norm)):
        clean = operation(inputs)
        assert check(clean, inputs, NORM).ok
        with inject_fault(operation, fault, at="rms_norm"):
            assert not check(operation(inputs), inputs, NORM).ok
        assert torch.equal(operation(inputs), clean)


def test_where_the_fault_changes_nothing_the_operations_own_bits_stay() -> None:
    inputs = norm_inputs()

    def odd(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return torch_norm(x, weight, eps) + 1  # far from any emulation

    operation = SingleOperation(NORM, odd)
    with inject_fault(operation, "truncating_cast", at="rms_norm"):
        bent = operation(inputs)
    moved = emulate(inputs, NORM, FAULTS["truncating_cast"]) != emulate(inputs, NORM)
    assert 0 < int(moved.sum()) < moved.numel()
    assert torch.equal(bent[~moved], odd(**inputs)[~moved])  # type: ignore[arg-type]
    assert torch.equal(bent[moved], emulate(inputs, NORM, FAULTS["truncating_cast"])[moved])


def test_models_take_the_same_way() -> None:
    tokens = torch.arange(9)
    model = Toy(torch.bfloat16)
    clean = model(tokens)
    with inject_fault(model, "truncating_cast", at="right"):
        bent = model(tokens)
    assert difference(clean, bent).differing > 0
    assert torch.equal(model(tokens), clean)


def test_overrides_of_a_single_operation_stack() -> None:
    operation, inputs = SingleOperation(NORM), norm_inputs()
    clean = operation(inputs)
    with (
        operation.override("rms_norm", lambda original, **given: original(**given) + 1),
        operation.override("rms_norm", lambda original, **given: original(**given) * 2),
    ):
        assert torch.equal(operation(inputs), (clean + 1) * 2)


def test_what_cannot_be_injected_is_named() -> None:
    operation = SingleOperation(PrecisionContract("silu"))
    for fault, at, error, message in (
        ("missing_upcast", "silu", ValueError, "nothing to bend at silu"),
        ("reordered_reduction", "silu", ValueError, "nothing to bend"),
        ("bad_luck", "silu", KeyError, "no fault is called 'bad_luck'"),
        ("flush_to_zero", "gelu", KeyError, "no operation is called 'gelu'"),
    ):
        with pytest.raises(error, match=message), inject_fault(operation, fault, at=at):
            pass
