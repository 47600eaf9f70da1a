"""The precision policies: what each is called, and in which formats it computes.

docs/numerics.md has their rounding points. The only file that knows a policy by its name: other
code asks for a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PolicyName(StrEnum):
    """Every precision policy."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp64 = "fp64"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"


class NativePolicyName(StrEnum):
    """The policies whose bits the native backend fixes."""

    fp32 = "fp32"
    bf16 = "bf16"
    bf16_weights = "bf16_weights"
    hf_bf16 = "hf_bf16"


@dataclass(frozen=True)
class PolicyFormats:
    """The formats of a forward pass: "fp32", "bf16" or "fp64".

    Attributes:
        weight: Matrices, norm weights and biases are rounded to it once, at load.
        activation: What linears, norms, RoPE, the gated product and attention's z round their
            output to.
        residual: What the embedding and the residual adds round to.
        compute: The arithmetic inside each of them, and the format of scores, patterns, norm scales
            and normalized activations.
        logits: The unembedding's output.
    """

    weight: str
    activation: str
    residual: str
    compute: str
    logits: str

    @property
    def stepwise(self) -> bool:
        """Whether every step of an operation is rounded, as in transformers' eager bf16 models."""
        return self.compute == "bf16"


FORMATS = {
    PolicyName.fp32: PolicyFormats("fp32", "fp32", "fp32", "fp32", "fp32"),
    PolicyName.bf16: PolicyFormats("bf16", "bf16", "fp32", "fp32", "fp32"),
    PolicyName.fp64: PolicyFormats("fp64", "fp64", "fp64", "fp64", "fp64"),
    PolicyName.bf16_weights: PolicyFormats("bf16", "fp32", "fp32", "fp32", "fp32"),
    # Its logits are bf16 numbers kept in fp32, as what follows them reads fp32.
    PolicyName.hf_bf16: PolicyFormats("bf16", "bf16", "bf16", "bf16", "fp32"),
}

STEPWISE = PolicyName.hf_bf16
"""The policy that is `stepwise`."""

GRADIENTS = tuple(name for name in NativePolicyName if not FORMATS[PolicyName(name)].stepwise)
"""The policies under which native operations have derivatives."""
