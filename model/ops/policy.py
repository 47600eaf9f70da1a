"""Precision policies: where a forward pass rounds, as named data (docs/numerics.md)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...policy_names import NativePolicyName, PolicyName


@dataclass(frozen=True)
class Policy:
    """The dtypes of a forward pass.

    Attributes:
        weight: Matrices, norm weights and biases are rounded to it once, at load.
        activation: What linears, norms, RoPE, the gated product and attention's z round their
            output to.
        residual: What the embedding and the residual adds round to.
        compute: The arithmetic inside each of them, and the dtype of scores, patterns, norm scales
            and normalized activations. bf16 rounds every step, as transformers does, except where
            model/ops/torch_huggingface.py and model/ops/native_huggingface.py say otherwise.
        logits: The unembedding's output.
    """

    name: str
    weight: torch.dtype
    activation: torch.dtype
    residual: torch.dtype
    compute: torch.dtype
    logits: torch.dtype


_F32, _BF16, _F64 = torch.float32, torch.bfloat16, torch.float64

POLICIES = {
    name.value: Policy(name.value, *dtypes)
    for name, dtypes in {
        # weight, activation, residual, compute, logits
        PolicyName.fp32: (_F32, _F32, _F32, _F32, _F32),
        PolicyName.bf16: (_BF16, _BF16, _F32, _F32, _F32),
        PolicyName.fp64: (_F64, _F64, _F64, _F64, _F64),
        PolicyName.bf16_weights: (_BF16, _F32, _F32, _F32, _F32),
        # Its logits are bf16 numbers kept in fp32, as what follows them reads fp32.
        PolicyName.hf_bf16: (_BF16, _BF16, _BF16, _BF16, _F32),
    }.items()
}


NATIVE_POLICIES = tuple(name.value for name in NativePolicyName)
"""Those whose bits the native backend fixes."""


def get_policy(dtype: str) -> Policy:
    """The policy called `dtype`. Raises ValueError listing those there are."""
    if dtype not in POLICIES:
        raise ValueError(f"dtype = {dtype!r}: expected one of {', '.join(map(repr, POLICIES))}")
    return POLICIES[dtype]
