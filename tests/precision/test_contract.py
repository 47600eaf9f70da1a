"""precision/contract.py, contracts.py: what may be declared, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from bitlens.precision.contract import ContractError, PrecisionContract, depth
from bitlens.precision.contracts import (
    BITLENS,
    BITLENS_BF16,
    HUGGINGFACE_LLAMA_BF16,
    HUGGINGFACE_LLAMA_FP32,
    bitlens_contract,
)
from bitlens.precision.operations import OPERATIONS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": "conv"}, "known are matmul"),
        ({"op": "matmul", "storage": "bfloat16"}, "known formats are bf16"),
        ({"op": "matmul", "casts": ("normalized",)}, "it has inputs, product, output"),
        ({"op": "matmul", "casts": ("output", "output")}, "named twice"),
        ({"op": "rms_norm", "compute": "bf16"}, "compute in fp32 or wider"),
        ({"op": "matmul", "compute": "tf32"}, "add 'inputs' to casts"),
        ({"op": "matmul", "casts": ("inputs", "output")}, "not narrower"),
        ({"op": "silu", "order": "pairwise"}, "silu sums nothing"),
        ({"op": "matmul", "order": "blocked:0"}, "blocked:B"),
        ({"op": "matmul", "order": "blocked:²"}, "blocked:B"),
        ({"op": "matmul", "order": "backwards"}, "blocked:B"),
        ({"op": "matmul", "output": "bf16", "casts": ()}, "add it to casts"),
        ({"op": "silu", "function_ulp": 0.1}, "at least 0.5 ULP"),
        ({"op": "silu", "function_ulp": float("nan")}, "finite"),
        ({"op": "silu", "angles": "fp64"}, "only rope"),
    ],
)
def test_contradictions_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        PrecisionContract(**fields)


def test_outputs_leave_in_the_format_declared() -> None:
    assert PrecisionContract("matmul", storage="bf16").output_format.name == "bf16"
    assert PrecisionContract("matmul", storage="bf16", casts=()).output_format.name == "fp32"
    assert PrecisionContract("matmul", storage="bf16", output="fp32").output_format.name == "fp32"


@pytest.mark.parametrize(
    ("order", "n", "expected"),
    [
        ("any", 9, 8),
        ("sequential", 9, 8),
        ("pairwise", 8, 3),
        ("pairwise", 9, 4),
        ("blocked:4", 9, 3 + 2),
        ("blocked:256", 100, 99),
        ("any", 1, 0),
        ("pairwise", 1, 0),
        ("blocked:4", 0, 0),
    ],
)
def test_depth_counts_a_terms_additions(order: str, n: int, expected: int) -> None:
    assert depth(order, n) == expected


def test_the_named_sets_cover_every_operation() -> None:
    """bitlens's those that it has kernels for."""
    native = [op for op, operation in OPERATIONS.items() if operation.native is not None]
    assert "matmul" in native
    assert "group_norm" not in native
    for contracts in (BITLENS, BITLENS_BF16):
        assert list(contracts) == native
    for contracts in (HUGGINGFACE_LLAMA_FP32, HUGGINGFACE_LLAMA_BF16):
        assert list(contracts) == list(OPERATIONS)
    for contracts in (BITLENS, BITLENS_BF16, HUGGINGFACE_LLAMA_FP32, HUGGINGFACE_LLAMA_BF16):
        assert all(contract.op == op for op, contract in contracts.items())


def test_bitlens_keeps_logits_in_fp32() -> None:
    assert bitlens_contract("unembed", "bf16").output_format.name == "fp32"
    with pytest.raises(ContractError, match="no native kernels"):
        bitlens_contract("matmul", "fp64")
    for unknown in ("conv", "group_norm"):
        with pytest.raises(ContractError, match="has no kernel for it; known are"):
            bitlens_contract(unknown, "fp32")
