"""The contracts of bitlens's kernels, of Hugging Face's eager Llama and of fused units.

A contract of one's own takes a line:

    PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..policies import FORMATS, NativePolicyName, PolicyName
from .contract import ContractError, PrecisionContract
from .operations import OPERATIONS, UNITS

_NATIVE = {op: operation.native for op, operation in OPERATIONS.items() if operation.native}


def bitlens_contract(op: str, policy: str) -> PrecisionContract:
    """Returns what bitlens's native kernels promise under a policy (docs/numerics.md).

    `op` is one of `BITLENS` or "unembed", the matmul whose output stays fp32 unless the policy
    is stepwise; then all contracts but rope's angles and the orders are `HUGGINGFACE_LLAMA_BF16`'s.
    Raises ContractError for other operations, and for policies without native kernels.
    """
    if policy not in list(NativePolicyName):
        natives = ", ".join(repr(name.value) for name in NativePolicyName)
        raise ContractError(f"policy {policy!r} has no native kernels: use {natives}")
    formats = FORMATS[PolicyName(policy)]
    storage, stepwise = formats.activation, formats.stepwise
    if op == "unembed":
        product = bitlens_contract("matmul", policy)
        return replace(product, output="bf16" if stepwise else "fp32")
    if op not in _NATIVE:
        raise ContractError(
            f"op {op!r}: bitlens has no kernel for it; known are {', '.join(_NATIVE)} and unembed"
        )
    native, operation = _NATIVE[op], OPERATIONS[op]
    casts = operation.eager.casts if stepwise else ()
    if native.fp32:
        storage, casts = "fp32" if native.stepwise is None or not stepwise else native.stepwise, ()
    return PrecisionContract(
        op,
        storage=storage,
        order=(storage == "bf16" and native.bf16_order) or native.order,
        function_ulp=native.function_ulp,
        angles=native.angles,
        output=native.output,
        casts=(*casts, "output"),
    )


BITLENS: dict[str, PrecisionContract] = {op: bitlens_contract(op, "fp32") for op in _NATIVE}
"""bitlens under the policy fp32."""

BITLENS_BF16: dict[str, PrecisionContract] = {op: bitlens_contract(op, "bf16") for op in _NATIVE}
"""bitlens under the policy bf16."""

HUGGINGFACE_LLAMA_FP32: dict[str, PrecisionContract] = {
    op: PrecisionContract(op, function_ulp=operation.eager.function_ulp)
    for op, operation in OPERATIONS.items()
}
"""transformers' eager Llama in fp32; angles in fp32, as its rotary embedding forms them."""

HUGGINGFACE_LLAMA_BF16: dict[str, PrecisionContract] = {
    op: PrecisionContract(
        op,
        storage="bf16",
        casts=(*operation.eager.casts, "output"),
        function_ulp=operation.eager.function_ulp,
        may_flush=operation.eager.flushes,
    )
    for op, operation in OPERATIONS.items()
}
"""transformers' eager Llama in bf16 (modeling_llama.py): every module rounds what it returns."""


@cache
def unit_contract(op: str, storage: str) -> PrecisionContract:
    """Returns the promise of one of `UNITS`: sums in any order, and between its ends a value is
    rounded to storage at a cast point or kept. Kernels of attention and of bf16 may turn subnormals
    into zeros.
    """
    flushes = storage == "bf16" or op != "gated_mlp"
    return PrecisionContract(op, storage=storage, casts=UNITS[op].cast_points, may_flush=flushes)
