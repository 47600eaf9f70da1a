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

_FORMATS_OF_CODES = ("int8", "fp8_e4m3", "fp4_e2m1")
_CODES = {codes: PrecisionContract("quantize", output=codes) for codes in _FORMATS_OF_CODES}

LIBRARIES: dict[str, Mapping[str, PrecisionContract]] = {
    "bitlens fp32": BITLENS,
    "bitlens bf16": {op: c for op, c in BITLENS_BF16.items() if c != BITLENS[op]},
    "Hugging Face fp32": HUGGINGFACE_LLAMA_FP32,
    "Hugging Face bf16": HUGGINGFACE_LLAMA_BF16,
    "plain fp16": {op: PrecisionContract(op, storage="fp16") for op in OPERATIONS},
    **{f"codes {codes}": {"quantize": contract} for codes, contract in _CODES.items()},
}
"""bitlens promises an order of its sums, Hugging Face more casts, the plain one neither.

bitlens computes softmax, logsumexp and soft_cap in fp32 under both policies: they are listed once.
What codes there are is the format of a quantisation's output.
"""
