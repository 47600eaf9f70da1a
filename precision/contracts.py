"""The contracts of bitlens's kernels and of Hugging Face's eager Llama.

A contract of one's own takes a line:

    PrecisionContract("rms_norm", storage="bf16", casts=("normalized", "output"))
"""

from __future__ import annotations

from .contract import ContractError, PrecisionContract
from .operations import OPERATIONS


def bitlens_contract(op: str, policy: str) -> PrecisionContract:
    """What bitlens's native kernels promise (docs/numerics.md) under "fp32" or "bf16".

    `op` is one of `OPERATIONS` or "unembed", the matmul whose output stays fp32. Raises
    ContractError for others, and for policies without native kernels.
    """
    if policy not in ("fp32", "bf16"):
        raise ContractError(f"policy {policy!r} has no native kernels: use 'fp32' or 'bf16'")
    if op == "unembed":
        return PrecisionContract("matmul", storage=policy, order="blocked:256", output="fp32")
    if op not in OPERATIONS:
        raise ContractError(f"op {op!r}: known are {', '.join(OPERATIONS)} and unembed")
    if op in ("softmax", "logsumexp"):  # always of fp32 scores or logits
        return PrecisionContract(op, order="blocked:256", function_ulp=1.0)
    if op == "soft_cap":  # of fp32 logits
        return PrecisionContract(op, function_ulp=1.0)
    order = "blocked:256" if OPERATIONS[op].reduces and op != "layer_norm" else "any"
    angles = "fp64" if op == "rope" else None
    return PrecisionContract(op, storage=policy, order=order, angles=angles)


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
    for op, casts in {
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
    }.items()
}
"""transformers' eager Llama in bf16 (modeling_llama.py): every module rounds what it returns."""
