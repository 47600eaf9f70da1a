"""The distance between next-token distributions. Names: T positions, V vocabulary."""

from __future__ import annotations

import torch


def kl_divergence(logits_p_TV: torch.Tensor, logits_q_TV: torch.Tensor) -> torch.Tensor:
    """KL(softmax(p) || softmax(q)) in nats for every position, fp64 [T] (any leading shape).

    Raises ValueError for shapes that differ and non-finite logits.
    """
    if logits_p_TV.shape != logits_q_TV.shape or logits_p_TV.ndim < 1:
        raise ValueError(
            f"kl_divergence: logits {tuple(logits_p_TV.shape)} and {tuple(logits_q_TV.shape)}: "
            "expected the same shape [..., vocabulary]"
        )
    log_p_TV = torch.log_softmax(logits_p_TV.double(), dim=-1)
    log_q_TV = torch.log_softmax(logits_q_TV.double(), dim=-1)
    kl_T = kl_of_logprobs(log_p_TV, log_q_TV)
    if not bool(kl_T.isfinite().all()):
        raise ValueError("kl_divergence: logits are not finite")
    return kl_T


def kl_of_logprobs(log_p_TV: torch.Tensor, log_q_TV: torch.Tensor) -> torch.Tensor:
    """Returns KL(p || q) in nats for every position, fp64 [T], from fp64 log-probabilities.

    Summed as p (exp(-d) - 1 + d) with d = log p - log q: no term is negative, and the terms that
    this adds to p d sum to zero.
    """
    ratio_TV = log_p_TV - log_q_TV
    return (log_p_TV.exp() * (torch.expm1(-ratio_TV) + ratio_TV)).sum(-1).clamp_min(0)
