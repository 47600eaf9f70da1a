"""The contracts in the matrix, by library and storage."""

from __future__ import annotations

from collections.abc import Mapping

from ...precision.contract import PrecisionContract
from ...precision.contracts import (
    BITLENS,
    BITLENS_BF16,
    HUGGINGFACE_LLAMA_BF16,
    HUGGINGFACE_LLAMA_FP32,
)

_OF_A_PASS = [op for op in BITLENS if op != "cross_entropy"]


def _of_a_pass(contracts: Mapping[str, PrecisionContract]) -> dict[str, PrecisionContract]:
    return {op: contracts[op] for op in _OF_A_PASS}


LIBRARIES: dict[str, Mapping[str, PrecisionContract]] = {
    "bitlens fp32": _of_a_pass(BITLENS),
    "bitlens bf16": {op: c for op, c in _of_a_pass(BITLENS_BF16).items() if c != BITLENS[op]},
    "Hugging Face fp32": _of_a_pass(HUGGINGFACE_LLAMA_FP32),
    "Hugging Face bf16": _of_a_pass(HUGGINGFACE_LLAMA_BF16),
    "plain fp16": {op: PrecisionContract(op, storage="fp16") for op in _OF_A_PASS},
}
"""bitlens promises an order of its sums, Hugging Face more casts, the plain one neither.

bitlens computes softmax, logsumexp and soft_cap in fp32 under both policies: they are listed once.
A loss is no operation of a forward pass: tests/precision judges it and its faults.
"""
