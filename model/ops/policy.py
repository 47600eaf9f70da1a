"""Precision policies: where a forward pass rounds, as named data (docs/numerics.md)."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch

from ...policies import FORMATS, NativePolicyName, PolicyName


@dataclass(frozen=True)
class Policy:
    """The dtypes of a forward pass; `PolicyFormats` says what each of them is for.

    A `compute` of bf16 rounds every step, as transformers does, except where
    model/ops/torch_huggingface.py and model/ops/native_huggingface.py say otherwise.
    """

    name: str
    weight: torch.dtype
    activation: torch.dtype
    residual: torch.dtype
    compute: torch.dtype
    logits: torch.dtype

    @property
    def stepwise(self) -> bool:
        """Whether every step of an operation is rounded, as in transformers' eager bf16 models."""
        return FORMATS[PolicyName(self.name)].stepwise


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}

POLICIES = {
    name.value: Policy(name.value, *(_DTYPES[format_] for format_ in astuple(formats)))
    for name, formats in FORMATS.items()
}
"""The policies by name, as the dtypes of torch."""

NATIVE_POLICIES = tuple(name.value for name in NativePolicyName)
"""The policies whose bits the native backend fixes."""


def get_policy(dtype: str) -> Policy:
    """Returns the policy called `dtype`; raises ValueError listing them for another name."""
    if dtype not in POLICIES:
        raise ValueError(f"dtype = {dtype!r}: expected one of {', '.join(map(repr, POLICIES))}")
    return POLICIES[dtype]
