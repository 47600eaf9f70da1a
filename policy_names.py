"""What precision policies are called. docs/numerics.md says where each of them rounds."""

from __future__ import annotations

from enum import StrEnum


class PolicyName(StrEnum):
    """Every precision policy."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp64 = "fp64"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"


class NativePolicyName(StrEnum):
    """Those whose bits the native backend fixes."""

    fp32 = "fp32"
    bf16 = "bf16"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"
