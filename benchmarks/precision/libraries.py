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
from ...precision.operations import OPERATIONS

LIBRARIES: dict[str, Mapping[str, PrecisionContract]] = {
    "bitlens fp32": BITLENS,
    "bitlens bf16": {op: c for op, c in BITLENS_BF16.items() if c != BITLENS[op]},
    "Hugging Face fp32": HUGGINGFACE_LLAMA_FP32,
    "Hugging Face bf16": HUGGINGFACE_LLAMA_BF16,
    "plain fp16": {op: PrecisionContract(op, storage="fp16") for op in OPERATIONS},
}
"""bitlens promises an order of its sums, Hugging Face more casts, the plain one neither.

bitlens computes softmax, logsumexp and soft_cap in fp32 under both policies: they are listed once.
"""
