"""The contracts of bitlens's kernels and of Hugging Face's eager Llama.

A contract of one's own takes a line:

    PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))
"""

from __future__ import annotations

from ..policies import FORMATS, NativePolicyName, PolicyName
from .contract import ContractError, PrecisionContract
from .operations import OPERATIONS

_EAGER_CASTS: dict[str, tuple[str, ...]] = {
    "matmul": (),
    "rms_norm": ("normalized",),
    "layer_norm": (),
    "softmax": (),
    "logsumexp": (),
    "attention": ("scores", "scaled", "probabilities"),
    "soft_cap": ("quotient", "tanh"),
    "rope": ("tables", "products"),
    "silu": (),
    "swiglu": ("activated",),
    "gelu": (),
}
"""What transformers' eager Llama rounds on the way to an operation's output."""


def bitlens_contract(op: str, policy: str) -> PrecisionContract:
    """Returns what bitlens's native kernels promise under a policy (docs/numerics.md).

    `op` is one of `OPERATIONS` or "unembed", the matmul whose output stays fp32 unless the policy
    is stepwise; then all contracts but rope's angles and the orders are `HUGGINGFACE_LLAMA_BF16`'s.
    Raises ContractError for other operations, and for policies without native kernels.
    """
    if policy not in list(NativePolicyName):
        natives = ", ".join(repr(name.value) for name in NativePolicyName)
        raise ContractError(f"policy {policy!r} has no native kernels: use {natives}")
    formats = FORMATS[PolicyName(policy)]
    storage, stepwise = formats.activation, formats.stepwise
    if op == "unembed":
        output = "bf16" if stepwise else "fp32"
        return PrecisionContract("matmul", storage=storage, order="blocked:256", output=output)
    if op not in OPERATIONS:
        raise ContractError(f"op {op!r}: known are {', '.join(OPERATIONS)} and unembed")
    if op in ("softmax", "logsumexp"):
        # Of fp32 scores or logits; of scores and to a pattern in bf16 where every step is rounded.
        storage = "bf16" if stepwise and op == "softmax" else "fp32"
        return PrecisionContract(op, storage=storage, order="blocked:256", function_ulp=1.0)
    if op == "soft_cap":  # of fp32 logits
        return PrecisionContract(op, function_ulp=1.0)
    order = "blocked:256" if OPERATIONS[op].reduces and op != "layer_norm" else "any"
    angles = "fp64" if op == "rope" else None
    casts = (*(_EAGER_CASTS[op] if stepwise else ()), "output")
    return PrecisionContract(op, storage=storage, order=order, angles=angles, casts=casts)


BITLENS: dict[str, PrecisionContract] = {op: bitlens_contract(op, "fp32") for op in OPERATIONS}
"""bitlens under the policy fp32."""

BITLENS_BF16: dict[str, PrecisionContract] = {op: bitlens_contract(op, "bf16") for op in OPERATIONS}
"""bitlens under the policy bf16."""

# torch's vectorised GELU takes erf from Abramowitz & Stegun 7.1.26: 6 ULP of 1 off for x in [2, 4).
_FUNCTION_ULP = {"gelu": 8.0}

HUGGINGFACE_LLAMA_FP32: dict[str, PrecisionContract] = {
    op: PrecisionContract(op, function_ulp=_FUNCTION_ULP.get(op, 2.0)) for op in OPERATIONS
}
"""transformers' eager Llama in fp32; angles in fp32, as its rotary embedding forms them."""

# oneDNN's bf16 kernels, which torch uses for these on CPUs with bf16 instructions, flush.
_FLUSHED_BY_ONEDNN = ("matmul", "attention", "gelu")

HUGGINGFACE_LLAMA_BF16: dict[str, PrecisionContract] = {
    op: PrecisionContract(
        op,
        storage="bf16",
        casts=(*casts, "output"),
        function_ulp=_FUNCTION_ULP.get(op, 2.0),
        may_flush=op in _FLUSHED_BY_ONEDNN,
    )
    for op, casts in _EAGER_CASTS.items()
}
"""transformers' eager Llama in bf16 (modeling_llama.py): every module rounds what it returns."""
