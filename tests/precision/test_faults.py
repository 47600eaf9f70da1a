"""precision/faults.py, emulation.py, separators.py: every fault that can show does."""

from __future__ import annotations

import pytest
import torch
from bitlens.precision.contract import PrecisionContract
from bitlens.precision.contracts import BITLENS_BF16, HUGGINGFACE_LLAMA_BF16
from bitlens.precision.emulation import emulate
from bitlens.precision.faults import FAULTS
from bitlens.precision.operations import OPERATIONS
from bitlens.precision.oracle import check
from bitlens.precision.separators import separating_inputs

PLAIN = {op: PrecisionContract(op) for op in OPERATIONS}
FP16 = {op: PrecisionContract(op, storage="fp16") for op in OPERATIONS}
PAIRS = {op: PrecisionContract(op, order="pairwise") for op in OPERATIONS if OPERATIONS[op].reduces}
FP8 = {op: PrecisionContract(op, storage="fp8_e4m3") for op in ("matmul", "rms_norm", "silu")}
SETS = {
    "fp32": PLAIN,
    "fp16": FP16,
    "fp8": FP8,
    "pairwise": PAIRS,
    "bitlens bf16": BITLENS_BF16,
    "hugging face bf16": HUGGINGFACE_LLAMA_BF16,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("contracts", SETS)
def test_faults_show_exactly_where_the_contract_can_tell(contracts: str, fault: str) -> None:
    for op, contract in SETS[contracts].items():
        if not FAULTS[fault].applies_to(contract):
            continue
        inputs = separating_inputs(contract, fault)
        honest = check(emulate(inputs, contract), inputs, contract)
        assert honest.ok, f"{op}: {honest.reason}"
        bent = check(emulate(inputs, contract, FAULTS[fault]), inputs, contract)
        argument = FAULTS[fault].why_indistinguishable(contract)
        assert bent.ok == (argument is not None), f"{op}: {bent.reason}; argument: {argument}"


def test_a_fault_with_nothing_to_bend_is_refused() -> None:
    contract = PrecisionContract("silu")
    assert not FAULTS["truncating_cast"].applies_to(contract)
    with pytest.raises(ValueError, match="nothing to bend"):
        FAULTS["truncating_cast"].why_indistinguishable(contract)
    with pytest.raises(ValueError, match="nothing to bend"):
        emulate({"x": torch.ones(2)}, contract, FAULTS["reordered_reduction"])


def test_tf32_contracts_permit_tf32_and_no_less() -> None:
    contract = PrecisionContract("matmul", compute="tf32", casts=("inputs", "output"))
    inputs = separating_inputs(PLAIN["matmul"], "tf32_inputs")
    rounded = emulate(inputs, PLAIN["matmul"], FAULTS["tf32_inputs"])
    assert check(rounded, inputs, contract).ok
    excess = check(emulate(inputs, PLAIN["matmul"]), inputs, contract)
    assert not excess.ok
    assert FAULTS["tf32_inputs"].why_indistinguishable(contract) is not None


def test_flushing_is_permitted_where_declared() -> None:
    for op, plain in PLAIN.items():
        contract = PrecisionContract(op, may_flush=True)
        if FAULTS["flush_to_zero"].why_indistinguishable(plain) is not None:
            assert op in (
                "cross_entropy",
                "log_softmax",
            )  # whose results are never subnormal in fp32
            continue
        inputs = separating_inputs(plain, "flush_to_zero")
        flushed = emulate(inputs, plain, FAULTS["flush_to_zero"])
        assert not check(flushed, inputs, plain).ok
        assert (verdict := check(flushed, inputs, contract)).ok, verdict.reason
        assert FAULTS["flush_to_zero"].why_indistinguishable(contract) is not None


def test_emulation_is_the_machines_own_arithmetic() -> None:
    """fp32 emulated through fp64 has the bits of fp32 computed natively."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 33, generator=generator) * 2.0 ** torch.randint(-70, 60, (50, 33))
    weight = torch.randn(33, generator=generator)
    total = x[:, :1] * x[:, :1]
    for i in range(1, 33):
        total = total + x[:, i : i + 1] * x[:, i : i + 1]
    variance = total / 33 + 1e-6
    scale = (1 / variance.double().sqrt()).float()
    contract = PrecisionContract("rms_norm", order="sequential")
    emulated = emulate({"x": x, "weight": weight, "eps": 1e-6}, contract)
    native = x * scale * weight
    assert torch.equal(emulated.view(torch.int32), native.view(torch.int32))


def test_orders_differ_in_bits_and_agree_in_fp64() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 700, generator=generator), torch.randn(700, 5, generator=generator)
    outputs = [
        emulate({"a": a, "b": b}, PrecisionContract("matmul", order=order))
        for order in ("sequential", "pairwise", "blocked:256", "pairs:32:256")
    ]
    for y in outputs:
        torch.testing.assert_close(y.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[2], outputs[3])
