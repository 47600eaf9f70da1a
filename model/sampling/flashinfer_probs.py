"""Sampling from probabilities [B, V] under FlashInfer's names.

Their fp32 logarithms (docs/numerics.md) are sampled as logits, exactly. That rounding changes a
probability by at most 2^-17 of itself and keeps the order, but neighbours can become ties. A
negative probability or NaN makes a row not valid. Rows need not add up to 1.
"""

from __future__ import annotations

import torch

from ..ops.kernels import log
from .flashinfer_api import (
    Noise,
    PerRow,
    min_p_sampling_from_logits,
    sampling_from_logits,
    top_k_sampling_from_logits,
    top_k_top_p_sampling_from_logits,
    top_p_sampling_from_logits,
)
from .params import FilterOrder
from .sample import SampleOutput


def sampling_from_probs(
    probs: torch.Tensor, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token of each row."""
    return sampling_from_logits(log(probs.float()), noise, return_certificate=return_certificate)


def top_k_sampling_from_probs(
    probs: torch.Tensor, top_k: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token among the top_k best of each row."""
    return top_k_sampling_from_logits(
        log(probs.float()), top_k, noise, return_certificate=return_certificate
    )


def top_p_sampling_from_probs(
    probs: torch.Tensor, top_p: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token of each row's nucleus of mass top_p."""
    return top_p_sampling_from_logits(
        log(probs.float()), top_p, noise, return_certificate=return_certificate
    )


def min_p_sampling_from_probs(
    probs: torch.Tensor, min_p: PerRow, noise: Noise, *, return_certificate: bool = False
) -> SampleOutput:
    """A token among those at least min_p times as likely as the best."""
    return min_p_sampling_from_logits(
        log(probs.float()), min_p, noise, return_certificate=return_certificate
    )


def top_k_top_p_sampling_from_probs(
    probs: torch.Tensor,
    top_k: PerRow,
    top_p: PerRow,
    noise: Noise,
    *,
    filter_apply_order: FilterOrder = "top_k_first",
    return_certificate: bool = False,
) -> SampleOutput:
    """A token that both filters keep; "joint" takes top_p as a share of the whole row."""
    return top_k_top_p_sampling_from_logits(
        log(probs.float()), top_k, top_p, noise, filter_apply_order=filter_apply_order,
        return_certificate=return_certificate,
    )  # fmt: skip
