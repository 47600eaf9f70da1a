"""vLLM's sampling operations, argument for argument: `from bitlens.model.sampling import vllm`.

Those of vllm.v1.sample.ops.topk_topp_sampler. Of equal logits at the edge of top-k exactly k stay,
and a row's token follows from its own generator alone (docs/sampling.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from . import flashinfer_api, flashinfer_probs
from .flashinfer import fresh_seed
from .flashinfer_api import Noise

__all__ = ["apply_top_k_top_p", "random_sample"]

Tensor = torch.Tensor


def apply_top_k_top_p(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
    """Logits [B, V] with -inf where top-k, then top-p of what is left, drops a token; k and p [B],
    None for none."""
    masked = logits if k is None else flashinfer_api.top_k_mask_logits(logits, k)
    if p is None:
        return masked
    probs = flashinfer_api.softmax(masked)
    return masked.masked_fill(flashinfer_api.top_p_renorm_probs(probs, p) == 0, -torch.inf)


def random_sample(probs: Tensor, generators: Mapping[int, torch.Generator]) -> Tensor:
    """A token [B] (int64) of each row of probabilities; rows without a generator of their own draw
    from torch's default one."""
    seeds = [fresh_seed(generators.get(row)) for row in range(len(probs))]
    return flashinfer_probs.sampling_from_probs(probs, Noise(seed=seeds)).tokens
